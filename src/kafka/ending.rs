//! Ends clients of librdkafka in time. A client ends only when every name that it looks up has been answered:
//! with a resolver that does not answer it ends with the process.

use std::ops::Deref;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// How long clients, and the supervisor, which may be asking the brokers something, may take to end.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs what ends a client on a thread of its own, and waits for it for so long at most.
pub(super) fn end_within(timeout: Duration, end: impl FnOnce() + Send + 'static) {
    let (ended, has_ended) = sync_channel::<()>(0);
    let _ = std::thread::Builder::new().name("kafka-close".into()).spawn(move || {
        end();
        drop(ended);
    });
    let _ = has_ended.recv_timeout(timeout);
}

/// A client, or what has one, that a command uses. Dropping it takes `CLOSE_TIMEOUT` at most.
pub struct EndsInTime<T: Send + 'static>(Option<T>);

impl<T: Send> EndsInTime<T> {
    pub fn new(client: T) -> EndsInTime<T> {
        EndsInTime(Some(client))
    }
}

impl<T: Send> Deref for EndsInTime<T> {
    type Target = T;

    #[expect(clippy::expect_used, reason = "only `drop` takes it")]
    fn deref(&self) -> &T {
        self.0.as_ref().expect("a client")
    }
}

impl<T: Send> Drop for EndsInTime<T> {
    fn drop(&mut self) {
        let client = self.0.take();
        end_within(CLOSE_TIMEOUT, || drop(client));
    }
}
