//! The handler of the simulation: it does with each request what the plan says, and notes it.

use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{DATE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use tokio::time::sleep;

use super::super::{Admission, Handler, Peer, check_head, read_body};
use super::ledger::{ObservedHistory, Watch};
use super::plan::{Conduct, Framing};
use crate::click::outcome::Refusal;

/// The time of every answer: hyper would tell it by the machine's clock, and HTTP/2 takes fewer bytes for one
/// that it has told before.
const BEGINNING: &str = "Thu, 01 Jan 1970 00:00:00 GMT";

#[derive(Clone)]
pub struct Double {
    pub world: Arc<ObservedHistory>,
    pub admission: Arc<Admission>,
}

impl Double {
    fn watch(&self, address: SocketAddr) -> Option<Watch> {
        let connections = &self.world.plan.connections;
        let place = connections.iter().position(|plan| [plan.sender, plan.from].contains(&address));
        place.map(|place| self.world.watch(place))
    }
}

impl Handler for Double {
    type Body = Full<Bytes>;

    async fn handle(&self, peer: Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let watch = self.watch(peer.address).unwrap_or_else(|| self.world.watch(0));
        let number: usize = head.uri.path().trim_start_matches('/').parse().unwrap_or(usize::MAX);
        let Some(plan) = watch.plan().requests.get(number) else {
            watch.violation("a request was handed over that nobody sent");
            return Response::default();
        };
        if peer.address != watch.plan().sender {
            watch.violation("the address is not the sender's");
        }
        if head.method.as_str() != plan.method {
            watch.violation("the method is not the one that was sent");
        }
        let mut running = Running { watch: &watch, number, has_ended: false };
        watch.is_handed(number);
        let mut status = 200;
        if check_head(&head, &self.world.plan.limits).is_err() {
            watch.violation("a good head was refused");
        }
        match plan.conduct {
            Conduct::Refuse(wait) => {
                pause(wait).await;
                status = 401;
            }
            Conduct::Serve(wait) | Conduct::Panic(wait) => {
                let limits = &self.world.plan.limits;
                let read = match self.admission.admit() {
                    Ok(mut slot) => {
                        let read = read_body(body, &mut slot, limits).await;
                        watch.body_is_read(
                            number,
                            read.as_ref().map(Bytes::len).map_err(|why| why.refusal),
                        );
                        if read.is_ok() {
                            pause(wait).await;
                        }
                        read
                    }
                    Err(why) => Err(why),
                };
                match read {
                    Ok(bytes) if bytes != plan.body => {
                        watch.violation("the body is not the one that was sent");
                    }
                    Ok(_) => {}
                    Err(why) => status = why.refusal.facts().status.as_u16(),
                }
            }
        }
        if matches!(plan.conduct, Conduct::Panic(_)) && status == 200 {
            running.ends(500);
            // As a panic, but without its lines on the terminal.
            resume_unwind(Box::new("as it should"));
        }
        running.ends(status);
        let method = if plan.framing == Framing::Garbage { "" } else { plan.method };
        let answer = Response::builder()
            .status(status)
            .header(DATE, BEGINNING)
            .header("x-request", number)
            .header("x-method", method)
            .body(Full::new(Bytes::from(vec![b'z'; plan.answer])));
        answer.unwrap_or_default()
    }

    fn panicked(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response.headers_mut().insert(DATE, HeaderValue::from_static(BEGINNING));
        response
    }

    fn closed(&self, address: SocketAddr, why: Refusal) {
        if let Some(watch) = self.watch(address) {
            watch.closes(why);
        }
    }
}

async fn pause(wait: std::time::Duration) {
    if !wait.is_zero() {
        sleep(wait).await;
    }
}

/// A request that is handled; notes whether it runs to its end.
struct Running<'w> {
    watch: &'w Watch,
    number: usize,
    has_ended: bool,
}

impl Running<'_> {
    fn ends(&mut self, status: u16) {
        self.has_ended = true;
        self.watch.answers(self.number, status);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.watch.is_dropped(self.number);
        }
    }
}
