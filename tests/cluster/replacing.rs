//! Pods that are replaced, added and removed under load.

use std::fs;

use serde_json::json;

use crate::command::{LONG, Result, wait_for};
use crate::kube::{Cluster, NAMESPACE};
use crate::load::{Row, now};
use crate::pages;

/// Clicks a second, where nothing else is said.
const RATE: u32 = 500;

/// Three pods restart one by one.
pub fn rolling_restart(cluster: &Cluster) -> Result<Row> {
    cluster.loses_nothing(RATE, 150, || {
        cluster.restart()?;
        Ok("three pods".into())
    })
}

pub fn rolling_restart_without_kafka(cluster: &Cluster) -> Result<Row> {
    without_kafka(cluster, || cluster.restart())
}

/// An upgrade changes a setting.
pub fn upgrade(cluster: &Cluster) -> Result<Row> {
    cluster.loses_nothing(RATE, 150, || {
        change_setting(cluster, "config.spool.max_bytes=4100000000")?;
        Ok("a setting changed".into())
    })
}

pub fn upgrade_without_kafka(cluster: &Cluster) -> Result<Row> {
    without_kafka(cluster, || change_setting(cluster, "config.spool.max_bytes=4200000000"))
}

fn change_setting(cluster: &Cluster, value: &str) -> Result<()> {
    cluster.upgrade(&[value])?;
    cluster.rolled_out()
}

/// The pods are replaced while Kafka is away.
fn without_kafka(cluster: &Cluster, replace: impl FnOnce() -> Result<()>) -> Result<Row> {
    cluster.stop_kafka()?;
    cluster.loses_nothing(RATE, 180, || {
        replace()?;
        let waiting = cluster.waiting_events()?;
        cluster.start_kafka()?;
        Ok(format!("three pods, {waiting} clicks waited on disk"))
    })
}

/// One pod becomes three.
pub fn scaled_up(cluster: &Cluster) -> Result<Row> {
    cluster.upgrade(&["replicaCount=1"])?;
    wait_for("one pod is left", LONG, || Ok(cluster.pods()?.len() == 1))?;
    cluster.loses_nothing(RATE, 60, || {
        cluster.upgrade(&["replicaCount=3"])?;
        cluster.rolled_out()?;
        Ok("1 pod became 3".into())
    })
}

/// Three pods, which hold clicks on their disks, become one. The chart's Job drains the volumes that are left, by
/// the commands of its page.
pub fn scaled_down_without_kafka(cluster: &Cluster) -> Result<Row> {
    cluster.stop_kafka()?;
    let (since, load) = (now(), cluster.load(RATE, 90)?);
    // Each pod has to have some.
    wait_for("clicks wait on each disk", LONG, || {
        let mut waiting = cluster.pods()?.into_iter();
        Ok(waiting.all(|pod| {
            cluster.metric(&pod, "hookbridge_spool_events").is_ok_and(|events| events > 0.0)
        }))
    })?;
    cluster.upgrade(&["replicaCount=1"])?;
    wait_for("one pod is left", LONG, || Ok(cluster.pods()?.len() == 1))?;
    cluster.start_kafka()?;
    let sent = load.end()?;
    sent.all_held()?;
    cluster.drained()?;
    let left = cluster.count(&sent, &since)?.lost;
    if left == 0 {
        return Err("no click was left on a volume".into());
    }
    let values =
        cluster.command("helm").args(["get", "values", "hookbridge", "-o", "yaml"]).output()?;
    fs::write(cluster.path("my-values.yaml"), values.stdout)?;
    let drain = pages::commands("deploy/chart/README.md", "send it by a Job")?;
    for number in ["1", "2"] {
        // The last command only follows the log of a pod that may not run yet.
        let drain = drain.replace("hookbridge-3", &format!("hookbridge-{number}"));
        let drain = drain.replace("drain-3", &format!("drain-{number}"));
        let (create, _) = drain.split_once("kubectl -n clicks logs").ok_or("the page changed")?;
        cluster.shell(create)?;
        let job = format!("job/hookbridge-drain-{number}");
        cluster.kubectl(&["wait", "--for=condition=Complete", &job, "--timeout=240s"])?;
    }
    let row = cluster.look_for(&sent, &since)?;
    cluster.upgrade(&["replicaCount=3"])?;
    cluster.rolled_out()?;
    Ok(row.note(format!("{left} clicks were left on two volumes until a Job sent them")))
}

/// Each pod is evicted, as for the maintenance of a node. The disruption budget lets one go at a time.
pub fn evictions(cluster: &Cluster) -> Result<Row> {
    cluster.loses_nothing(RATE, 180, || {
        let uid = |pod: &str| cluster.get(&format!("pod/{pod}"), ".metadata.uid");
        let mut refused = 0;
        for pod in cluster.pods()? {
            let old = uid(&pod)?;
            let eviction = cluster.path("eviction.json");
            let metadata = json!({ "name": pod, "namespace": NAMESPACE });
            let body = json!({
                "apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata,
            });
            fs::write(&eviction, body.to_string())?;
            let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction");
            let create = ["create", "--raw", &path, "-f", &eviction.to_string_lossy()];
            wait_for("the eviction is allowed", LONG, || {
                let is_evicted = match cluster.kubectl(&create) {
                    Ok(_) => true,
                    Err(error) if error.to_string().contains("disruption budget") => {
                        refused += 1;
                        false
                    }
                    Err(error) => return Err(error),
                };
                Ok(is_evicted)
            })?;
            wait_for("the pod is replaced", LONG, || Ok(uid(&pod)? != old))?;
        }
        cluster.rolled_out()?;
        if refused == 0 {
            return Err("the budget refused no eviction".into());
        }
        Ok(format!("three pods; the budget refused {refused} more until one was ready again"))
    })
}

/// The autoscaler is switched on in an upgrade that also replaces the pods.
pub fn autoscaler_switched_on(cluster: &Cluster) -> Result<Row> {
    cluster.loses_nothing(RATE, 180, || {
        let ready = cluster.ready_pods()?;
        cluster.upgrade(&[
            "autoscaling.enabled=true",
            "autoscaling.maxReplicas=4",
            "autoscaling.behavior.scaleDown.stabilizationWindowSeconds=15",
            "autoscaling.behavior.scaleDown.policies[0].type=Pods",
            "autoscaling.behavior.scaleDown.policies[0].value=1",
            "autoscaling.behavior.scaleDown.policies[0].periodSeconds=15",
            "config.spool.max_bytes=4000000000",
        ])?;
        cluster.rolled_out()?;
        let least = ready.least()?;
        if least < 2 {
            return Err(format!("only {least} pods were ready").into());
        }
        Ok(format!("never less than {least} of 3 pods were ready"))
    })
}

/// The autoscaler adds a pod by CPU and removes it again.
pub fn autoscaler_by_cpu(cluster: &Cluster) -> Result<Row> {
    let autoscaler = "horizontalpodautoscaler/hookbridge";
    let replicas = || cluster.get("statefulset/hookbridge", ".spec.replicas");
    let row = cluster.loses_nothing(3_000, 120, || {
        wait_for("a fourth pod", LONG, || Ok(replicas()? == "4"))?;
        let used = cluster
            .get(autoscaler, ".status.currentMetrics[0].resource.current.averageUtilization")?;
        Ok(format!("3 pods became 4 at {used} % of the CPU that they ask for"))
    })?;
    wait_for("three pods again", LONG, || Ok(replicas()? == "3"))?;
    let note = format!("{}, and 3 again without load", row.note);
    cluster.upgrade(&["autoscaling.enabled=false"])?;
    cluster.rolled_out()?;
    wait_for("three pods without the autoscaler", LONG, || Ok(cluster.pods()?.len() == 3))?;
    Ok(row.note(note))
}
