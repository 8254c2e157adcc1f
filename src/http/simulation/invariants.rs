//! What must be true of each connection once it is closed. Each invariant is checked against the times at which
//! bytes arrived and were taken, not against what the bridge believes.

use std::time::Duration;

use super::super::FIRST_REQUEST_TIMEOUT;
use super::super::connection::LINGER;
use super::super::phase::REST_AFTER;
use super::ledger::{Handed, Ledger};
use super::plan::{Conduct, ConnectionPlan, Framing, Plan, ms};
use super::wire::End;
use crate::click::outcome::Refusal;

/// Two events so near each other may be seen in either order: timers have whole milliseconds.
pub const SLACK: Duration = ms(2);

/// The cause that an answer was the last one.
const LAST: &str = "the last answer";

/// What may end a connection: when it allows the end, and when it demands it.
struct Cause(&'static str, Duration, Option<Duration>);

/// A closed connection, and what is derived from its ledger.
struct Closed<'w> {
    plan: &'w Plan,
    connection: &'w ConnectionPlan,
    ledger: &'w Ledger,
    /// When it was closed, and why, as the bridge says.
    at: Duration,
    why: Option<Refusal>,
    /// When its first request could begin.
    ready: Duration,
    /// The last time at which an answer was made or a byte of one was taken.
    quiet: Duration,
    /// When draining began, if that was before the end.
    drain: Option<Duration>,
}

/// Checks a connection that was accepted; what is broken.
pub fn check(plan: &Plan, number: usize, ledger: &Ledger) -> Result<(), String> {
    let connection = &plan.connections[number];
    let Some(opened) = ledger.opened else { return Ok(()) };
    let Some((at, why)) = ledger.closed else {
        return Err("limits: the connection is never closed".into());
    };
    let ready = if connection.proxy.is_some() { ledger.proxied } else { Some(opened) };
    let ends = ledger.handed.iter().filter_map(|handed| handed.ended.map(|(at, _)| at));
    let quiet = ends.chain(ledger.last_write).chain(ready).max().unwrap_or(opened);
    let drain = plan.drain_at.filter(|drain| *drain <= at);
    let ready = ready.unwrap_or(Duration::MAX);
    let closed = Closed { plan, connection, ledger, at, why, ready, quiet, drain };
    if ledger.handed.is_empty() && connection.proxy.is_some() {
        let result = closed.without_proxy_header(opened);
        // A header that came at the last moment may have come too late.
        if ready > at || (ready + SLACK >= at && result.is_ok()) {
            return result;
        }
    }
    for handed in &ledger.handed {
        closed.body(handed)?;
    }
    if connection.is_http2 {
        return closed.http2();
    }
    closed.once_and_in_order()?;
    closed.answers()?;
    closed.runs_to_the_end()?;
    closed.nothing_is_lost()?;
    closed.limits()
}

impl Closed<'_> {
    fn was_ended(&self, how: End) -> bool {
        self.ledger.ended.is_some_and(|(at, end)| end == how && at <= self.at)
    }

    /// Whether the sender reads so slowly that the bridge gave up.
    fn gave_up(&self) -> bool {
        self.why == Some(Refusal::SenderGone)
            && self.stalled().is_some_and(|until| self.at + SLACK >= until)
    }

    /// Whether the sender sent its end in the middle of a head, behind a request whose body nobody wanted. hyper gives
    /// up what it has not written of the answer then.
    fn ended_behind_a_refusal(&self) -> bool {
        self.why == Some(Refusal::NotHttp)
            && self.was_ended(End::Finished)
            && self.ledger.handed.last().is_some_and(|handed| self.leaves_body(handed))
            && self.begun().is_some_and(|(_, _, head)| head.is_none())
    }

    /// Until when the bridge waits for the sender to read, if it waits.
    fn stalled(&self) -> Option<Duration> {
        Some(self.ledger.stalled_since()? + self.plan.limits.answer_timeout())
    }

    /// The first request that was not handed over, if its first byte arrived: when, and when its head was
    /// complete.
    fn begun(&self) -> Option<(usize, Duration, Option<Duration>)> {
        let number = self.ledger.handed.len();
        let arrival = self.ledger.arrivals.get(number)?;
        let first = arrival.first.filter(|first| *first <= self.at)?;
        Some((number, first, arrival.head))
    }

    /// Whether a request is one after whose answer the connection closes: the sender wants it, or what
    /// follows the answer may be the rest of the body.
    fn is_last(&self, handed: &Handed) -> bool {
        let plan = &self.connection.requests[handed.request];
        plan.closes || matches!(handed.body, Some((_, Err(_)))) || self.leaves_body(handed)
    }

    fn leaves_body(&self, handed: &Handed) -> bool {
        let plan = &self.connection.requests[handed.request];
        let has_body = !plan.body.is_empty() || plan.framing == Framing::Chunked;
        has_body && (handed.body.is_none() || matches!(handed.ended, Some((_, 401))))
    }

    /// How long a connection that has ended stays for what is still sent.
    fn linger(&self) -> Duration {
        LINGER.min(self.plan.limits.answer_timeout())
    }

    fn without_proxy_header(&self, opened: Duration) -> Result<(), String> {
        let limit = opened + self.plan.limits.header_timeout();
        let drained = self.drain.map(|drain| drain.max(opened) + FIRST_REQUEST_TIMEOUT);
        let latest = drained.map_or(limit, |drained| drained.min(limit));
        let was_ended = self.ledger.ended.is_some_and(|(at, _)| at <= self.at);
        if self.at > latest + SLACK {
            return Err("limits: a PROXY header has too much time".into());
        }
        if self.at + SLACK < latest && !was_ended {
            return Err("limits: a PROXY header has too little time".into());
        }
        Ok(())
    }

    /// A body is the one that was sent, or has not arrived in time.
    fn body(&self, handed: &Handed) -> Result<(), String> {
        let number = handed.request;
        let limits = &self.plan.limits;
        let body = &self.connection.requests[number].body;
        let arrived = self.ledger.arrivals[number].last;
        let limit = handed.at + limits.body_timeout();
        let conduct = self.connection.requests[number].conduct;
        let Some((at, result)) = handed.body else {
            let is_overdue = self.at > limit + SLACK && handed.ended.is_none();
            return match conduct {
                Conduct::Serve(_) | Conduct::Panic(_) if is_overdue => {
                    Err(format!("limits: the body of request {number} has too much time"))
                }
                _ => Ok(()),
            };
        };
        if at > limit + SLACK {
            return Err(format!("limits: the body of request {number} was read for too long"));
        }
        let is_true = match result {
            Ok(()) => body.len() <= limits.max_body_bytes,
            Err(Refusal::SlowBody) => {
                at + SLACK >= limit && arrived.is_none_or(|arrived| arrived + SLACK >= limit)
            }
            Err(Refusal::SenderGone) => self.ledger.ended.is_some_and(|(end, _)| end <= at),
            Err(Refusal::BodyTooLarge) => body.len() > limits.max_body_bytes,
            Err(Refusal::MemoryFull) => limits.max_bytes_in_flight < 1 << 20,
            Err(_) => false,
        };
        match is_true || self.connection.is_http2 {
            true => Ok(()),
            false => Err(format!("bodies: that of request {number} was read as {result:?}")),
        }
    }

    /// Each request is handed over once, in its order, and not before its head has arrived.
    fn once_and_in_order(&self) -> Result<(), String> {
        for (place, handed) in self.ledger.handed.iter().enumerate() {
            let head = self.ledger.arrivals[handed.request].head;
            if handed.request != place {
                return Err(format!(
                    "order: request {} is handed over as number {place}",
                    handed.request
                ));
            }
            if head.is_none_or(|head| head > handed.at) {
                return Err(format!("order: request {place} is handed over before it has arrived"));
            }
        }
        Ok(())
    }

    /// The answers are those to the requests, in their order, and reach the sender.
    fn answers(&self) -> Result<(), String> {
        let Ledger { handed, answers, .. } = self.ledger;
        let made: Vec<_> = handed.iter().filter_map(|handed| handed.ended).collect();
        for (place, answer) in answers.all.iter().enumerate() {
            let Some((_, status)) = made.get(place) else {
                let number = place.min(self.connection.requests.len() - 1);
                let is_garbage = self.connection.requests[number].framing == Framing::Garbage;
                // hyper's own, to what is no HTTP.
                match is_garbage && answer.status == 400 && place == handed.len() {
                    true => continue,
                    false => {
                        return Err(format!("answers: there is one too many, {}", answer.status));
                    }
                }
            };
            let is_named =
                answer.request == Some(place) || (*status == 500 && answer.request.is_none());
            if !is_named || answer.status != *status {
                return Err(format!(
                    "answers: number {place} is {} to {:?} instead of {status}",
                    answer.status, answer.request
                ));
            }
        }
        for (answer, handed) in answers.all.iter().zip(handed) {
            let is_drained = self.drain.is_some_and(|drain| drain <= answer.at);
            if answer.closes && !is_drained && !self.is_last(handed) {
                return Err("answers: one says without a cause that the connection closes".into());
            }
        }
        let is_cut = self.was_ended(End::Reset) || self.gave_up() || self.ended_behind_a_refusal();
        if !is_cut && (answers.all.len() < made.len() || answers.has_rest()) {
            return Err("answers: one was made and is not written whole".into());
        }
        let is_limit = self.why.is_some();
        if let Some(reset) = self.ledger.was_reset
            && !is_limit
            && self.ledger.last_write.is_some_and(|last| reset < last + self.linger())
        {
            return Err("answers: one was lost by a reset".into());
        }
        Ok(())
    }

    /// A request that was handed over runs to its end, even if the sender hangs up; unless it waits for its
    /// body, or answers before it were not read in time.
    fn runs_to_the_end(&self) -> Result<(), String> {
        let Some(dropped) = self.ledger.handed.iter().find(|handed| handed.dropped.is_some())
        else {
            return Ok(());
        };
        let owes = self.ledger.handed.iter().filter(|handed| handed.ended.is_some()).count();
        let wrote_all = self.ledger.answers.all.len() == owes;
        let waits_for_body = dropped.body.is_none();
        let was_reset = self.was_ended(End::Reset) && (waits_for_body || !wrote_all);
        match self.gave_up() || was_reset {
            true => Ok(()),
            false => Err(format!("end: request {} is dropped before its end", dropped.request)),
        }
    }

    /// A request whose head has arrived in time is handed over.
    fn nothing_is_lost(&self) -> Result<(), String> {
        let Some((number, first, Some(head))) = self.begun() else { return Ok(()) };
        let limits = &self.plan.limits;
        let is_used = number > 0;
        let since = self.quiet.max(first);
        let is_behind = first <= self.quiet;
        let waited = if is_behind && is_used {
            limits.header_timeout().min(limits.idle_timeout())
        } else {
            limits.header_timeout()
        };
        let is_slow = head + SLACK >= since + waited
            || (is_used && first + SLACK >= self.quiet + limits.idle_timeout());
        let closes = self.ledger.handed.iter().any(|handed| self.is_last(handed))
            || self.ledger.answers.all.iter().any(|answer| answer.closes);
        let is_drained = self.drain.is_some_and(|drain| {
            let last = self.ledger.handed.last().and_then(|last| last.ended);
            let is_new = is_used && first >= drain;
            let late = head + SLACK >= drain.max(since + FIRST_REQUEST_TIMEOUT);
            // The answer before it was made before the drain and taken after, or a part of its head came
            // before that answer.
            let follows =
                last.is_some() && self.quiet >= drain || is_used && is_behind && head > self.quiet;
            is_new || late || follows
        });
        let is_gone = head >= self.at || self.was_ended(End::Reset) || self.gave_up();
        match is_slow || closes || is_drained || is_gone {
            true => Ok(()),
            false => Err(format!("loss: request {number} has arrived and is not handed over")),
        }
    }

    /// The connection is closed when a limit is reached, and not before.
    fn limits(&self) -> Result<(), String> {
        let Closed { ledger, connection, at, why, ready, quiet, .. } = *self;
        let mut causes = Vec::new();
        let runs = ledger.handed.iter().any(|handed| handed.ended.is_none());
        let stalled = self.stalled();
        if let Some((end, how)) = ledger.ended {
            let demands = stalled.is_none() || how == End::Reset;
            causes.push(Cause("the sender's end", end, demands.then_some(end.max(quiet))));
        }
        if let Some(until) = stalled {
            causes.push(Cause("answer_timeout", until, Some(until)));
        }
        for (answer, handed) in ledger.answers.all.iter().zip(&ledger.handed) {
            // What is left of a body may be read and dropped.
            let arrived = ledger.arrivals[handed.request].last;
            let may_go_on = arrived.is_some_and(|arrived| arrived <= answer.at + SLACK)
                && !answer.closes
                && !connection.requests[handed.request].closes;
            if self.is_last(handed) || answer.closes {
                let latest = answer.at + self.plan.limits.answer_timeout();
                causes.push(Cause(LAST, answer.at, (!may_go_on).then_some(latest)));
            }
        }
        let begun = self.begun();
        let garbage =
            begun.filter(|(number, ..)| connection.requests[*number].framing == Framing::Garbage);
        // It may be told by its first bytes, or only by its last.
        if let Some((number, first, _)) = garbage {
            let whole = ledger.arrivals[number].last;
            let latest = whole.map(|whole| whole.max(quiet) + self.plan.limits.answer_timeout());
            causes.push(Cause("no HTTP", first, latest));
        }
        if !runs && stalled.is_none() {
            // After an answer that may have been the last it may have waited for what is still sent.
            let lingers = |at: Duration| at + self.plan.limits.answer_timeout();
            let last = causes.iter().filter(|Cause(name, ..)| *name == LAST);
            let last = last.map(|Cause(_, at, _)| lingers(*at));
            let whole = garbage.and_then(|(number, ..)| ledger.arrivals[number].last);
            let drained =
                self.drain.map(|drain| drain.max(quiet)).filter(|_| !ledger.handed.is_empty());
            let last = last.chain(whole.map(lingers)).chain(drained.map(lingers)).max();
            self.waits(begun.map(|(_, first, _)| first), garbage.is_some(), &mut causes);
            for Cause(_, _, latest) in &mut causes {
                *latest = latest.map(|latest| latest.max(last.unwrap_or_default()));
            }
        }
        if !causes.iter().any(|Cause(_, allows, _)| *allows <= at + SLACK) {
            let next = causes.iter().min_by_key(|Cause(_, allows, _)| *allows);
            let next = next.map(|Cause(name, allows, _)| (name, allows));
            return Err(format!("limits: closed too early ({why:?}); {next:?} was next"));
        }
        let demands = causes.iter().filter_map(|Cause(name, _, latest)| Some(((*latest)?, name)));
        if let Some((latest, name)) = demands.min().filter(|(latest, _)| at > *latest + SLACK) {
            return Err(format!("limits: it outlives {name}, which ends at {latest:?}"));
        }
        let is_told = match why {
            None | Some(Refusal::SenderGone) => true,
            Some(Refusal::SlowHead) => begun.is_some() || ledger.handed.is_empty() && ready <= at,
            Some(Refusal::NotHttp) => {
                garbage.is_some() || (begun.is_some() && self.was_ended(End::Finished))
            }
            Some(_) => false,
        };
        match is_told {
            true => Ok(()),
            false => Err(format!("limits: the reason is {why:?}")),
        }
    }

    /// What ends a connection that waits for a request, whose first byte may have arrived.
    fn waits(&self, begun: Option<Duration>, is_garbage: bool, causes: &mut Vec<Cause>) {
        let Closed { ready, quiet, drain, .. } = *self;
        let limits = &self.plan.limits;
        let (header, idle) = (limits.header_timeout(), limits.idle_timeout());
        let is_used = !self.ledger.handed.is_empty();
        let exactly = |name, until| Cause(name, until, Some(until));
        causes.push(match begun {
            _ if !is_used => exactly("header_timeout", ready + header),
            // It may have come just too late.
            Some(first) if first + SLACK >= quiet + idle => {
                Cause("idle_timeout", quiet + idle, Some(first + header))
            }
            Some(first) if first > quiet => exactly("header_timeout", first + header),
            // It began behind a request: it has the time of a head, or that of an idle connection, or
            // that of a head once the connection rests.
            Some(_) => {
                let latest = quiet + idle.max(REST_AFTER + header);
                Cause("header_timeout or idle_timeout", quiet + header.min(idle), Some(latest))
            }
            None => exactly("idle_timeout", quiet + idle),
        });
        causes.extend(drain.map(|drain| match begun {
            _ if !is_used => exactly("the drain", drain.max(ready + FIRST_REQUEST_TIMEOUT)),
            Some(first) if first > quiet && first < drain => {
                exactly("the drain", drain.max(first + FIRST_REQUEST_TIMEOUT))
            }
            // hyper may have ended it, or may still wait for its head. Where it began behind a request, its time may
            // begin only when the connection rests.
            Some(first) => {
                let latest = first.max(quiet + REST_AFTER) + FIRST_REQUEST_TIMEOUT;
                Cause("the drain", drain, Some(drain.max(latest) + self.linger()))
            }
            None => Cause("the drain", drain, Some(drain.max(quiet) + self.linger())),
        }));
        // What is no HTTP may have ended it meanwhile; then it stays for what is still sent.
        if is_garbage {
            for Cause(_, _, latest) in causes {
                *latest = latest.map(|latest| latest + limits.answer_timeout());
            }
        }
    }

    /// HTTP/2 has no order of its requests, and the sender's own client says when it has an answer.
    fn http2(&self) -> Result<(), String> {
        let Closed { ledger, connection, plan, at, .. } = *self;
        let limits = &plan.limits;
        let mut handed: Vec<usize> = ledger.handed.iter().map(|handed| handed.request).collect();
        handed.sort_unstable();
        if handed.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("order: a request is handed over twice".into());
        }
        let reads = connection.reading.stops.is_none() && connection.reading.pause.is_zero();
        let is_cut = ledger.ended.is_some_and(|(end, _)| end <= at) || !reads;
        for handed in ledger.handed.iter().filter(|_| !is_cut) {
            if handed.dropped.is_some() {
                return Err(format!("end: request {} is dropped before its end", handed.request));
            }
            if !ledger.got.contains(&handed.request) {
                return Err(format!("answers: that to request {} is missing", handed.request));
            }
        }
        let is_sent = |last: Option<Duration>| last.is_some_and(|last| last + SLACK < at);
        let sent = ledger.arrivals.iter().filter(|arrival| is_sent(arrival.last)).count();
        if !is_cut && self.drain.is_none() && ledger.handed.len() < sent && self.why.is_none() {
            return Err("loss: a request was sent and is not handed over".into());
        }
        let streams = limits.body_timeout() + 2 * limits.answer_timeout();
        let waits = limits.idle_timeout().max(limits.header_timeout());
        let last = ledger.handed.iter().map(|handed| handed.at + streams);
        let last = last.chain(ledger.last_write).chain([self.ready]).max().unwrap_or_default();
        match at > last + waits + limits.answer_timeout() + SLACK {
            true => Err("limits: it outlives all of them".into()),
            false => Ok(()),
        }
    }
}
