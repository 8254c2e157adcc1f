//! A sender of HTTP/1.1: one task follows the plan's steps, another reads the answers.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::ledger::Watch;
use super::plan::Reading;
use super::script::Step;
use super::wire::{End, Read, SenderEnd};

pub async fn send(wire: SenderEnd, watch: Watch) {
    let progress = Arc::new(Notify::new());
    tokio::join!(follow(&wire, &watch, &progress), read(&wire, watch.plan().reading, &progress));
}

/// Follows the steps as long as the connection lasts.
async fn follow(wire: &SenderEnd, watch: &Watch, progress: &Notify) {
    for step in &watch.plan().steps {
        if wire.is_over() {
            return;
        }
        match step {
            Step::SendProxy { bytes, is_last } => {
                watch.sends_proxy(bytes.len(), *is_last);
                wire.send(bytes);
            }
            Step::Send { request, bytes, marks } => {
                watch.sends(*request, bytes.len(), *marks);
                wire.send(bytes);
            }
            Step::Pause(pause) => sleep(*pause).await,
            Step::AwaitAnswers(count) => {
                while watch.progress().0 < *count && !wire.is_over() {
                    progress.notified().await;
                }
            }
            Step::AwaitContinue { request, patience } => {
                let before = watch.progress().1;
                let is_answered = || watch.progress().0 > *request;
                let _ = timeout(*patience, async {
                    while watch.progress().1 == before && !is_answered() && !wire.is_over() {
                        progress.notified().await;
                    }
                })
                .await;
                if is_answered() {
                    // Nobody wants the body.
                    return;
                }
            }
            Step::End(end) => return wire.end(*end),
        }
    }
}

async fn read(wire: &SenderEnd, plan: Reading, progress: &Notify) {
    let mut stops = plan.stops;
    let mut received = 0;
    loop {
        let most = stops.map_or(plan.piece, |(after, _)| plan.piece.min(after + 1 - received));
        let Read::Bytes(bytes) = wire.read(most).await else { break };
        received += bytes.len();
        progress.notify_one();
        if !plan.pause.is_zero() {
            sleep(plan.pause).await;
        }
        if let Some((_, pause)) = stops.take_if(|(after, _)| received > *after) {
            sleep(pause).await;
        }
    }
    sleep(plan.notices).await;
    wire.end(End::Finished);
    progress.notify_one();
}
