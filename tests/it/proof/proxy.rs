//! A TCP proxy between the bridge and a broker, which applies network faults to the broker's answers.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    Pass,
    /// Delays every answer.
    Delay(Duration),
    /// Closes the connection in the middle of an answer.
    Cut,
    /// Drops the broker's answers.
    Swallow,
}

pub struct Proxy(watch::Sender<Mode>);

impl Proxy {
    pub async fn start((listen, target): (u16, u16)) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", listen)).await.unwrap();
        let (sender, mode) = watch::channel(Mode::Pass);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target, mode.clone()));
            }
        });
        Proxy(sender)
    }

    pub fn set(&self, mode: Mode) {
        self.0.send_replace(mode);
    }
}

async fn carry(mut client: TcpStream, target: u16, mode: watch::Receiver<Mode>) {
    // A broker that is down refuses connections; its proxy closes them.
    let Ok(mut broker) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let (mut from_client, to_client) = client.split();
    let (from_broker, mut to_broker) = broker.split();
    tokio::select! {
        _ = copy(&mut from_client, &mut to_broker) => {}
        () = answers(from_broker, to_client, mode) => {}
    }
}

async fn answers(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut mode: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let now = *mode.borrow();
        match now {
            Mode::Pass => {}
            Mode::Delay(time) => tokio::time::sleep(time).await,
            Mode::Cut => {
                let _ = to.write_all(&buffer[..count / 2]).await;
                return;
            }
            Mode::Swallow => {
                // A dropped answer must not come later: the connection ends with the fault.
                let _ = mode.wait_for(|mode| *mode != Mode::Swallow).await;
                return;
            }
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
