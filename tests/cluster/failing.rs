//! Pods that are killed, that hang, and a broker that restarts, under load.

use std::time::Instant;

use crate::command::{LONG, Result, wait_for};
use crate::kube::Cluster;
use crate::load::{Row, now};

const RATE: u32 = 500;

/// A pod is deleted by force while Kafka is away: its successor may start before it is dead.
pub fn pod_killed_without_kafka(cluster: &Cluster) -> Result<Row> {
    cluster.stop_kafka()?;
    let (since, load) = (now(), cluster.load(RATE, 90)?);
    wait_for("clicks wait on disk", LONG, || {
        Ok(cluster.metric("hookbridge-1", "hookbridge_spool_events")? > 0.0)
    })?;
    cluster.kubectl(&["delete", "pod/hookbridge-1", "--grace-period=0", "--force"])?;
    let start = Instant::now();
    cluster.rolled_out()?;
    let took = start.elapsed();
    let restarts = cluster.get("pod/hookbridge-1", ".status.containerStatuses[0].restartCount")?;
    if restarts != "0" {
        return Err(format!("the successor was restarted {restarts} times").into());
    }
    cluster.start_kafka()?;
    let sent = load.end()?;
    cluster.drained()?;
    let row = cluster.look_for(&sent, &since)?;
    Ok(row.note(format!("its successor was ready after {:.0} s", took.as_secs_f64())))
}

/// A process that is stopped with its connections open, and answers no probe.
pub fn pod_hangs(cluster: &Cluster) -> Result<Row> {
    let (since, load) = (now(), cluster.load(RATE, 90)?);
    let restarts = || cluster.get("pod/hookbridge-2", ".status.containerStatuses[0].restartCount");
    let before = restarts()?;
    cluster.signal("hookbridge-2", "STOP")?;
    let start = Instant::now();
    wait_for("the pod is restarted", LONG, || Ok(restarts()? != before))?;
    let took = start.elapsed();
    cluster.rolled_out()?;
    let sent = load.end()?;
    if took.as_secs() > 40 {
        return Err(format!("it was restarted only after {} s", took.as_secs()).into());
    }
    cluster.drained()?;
    let row = cluster.look_for(&sent, &since)?;
    Ok(row.note(format!("restarted after {:.0} s", took.as_secs_f64())))
}

/// The only broker restarts.
pub fn broker_restarts(cluster: &Cluster) -> Result<Row> {
    cluster.loses_nothing(RATE, 90, || {
        cluster.kubectl(&["delete", "pod/broker-0"])?;
        let start = Instant::now();
        cluster.kubectl(&["rollout", "status", "statefulset/broker", "--timeout=240s"])?;
        Ok(format!("the broker was away for {:.0} s", start.elapsed().as_secs_f64()))
    })
}
