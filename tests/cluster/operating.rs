//! Installing by the page, changing keys and certificates, policies, and removing the release.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;

use crate::command::{LONG, Result, SHORT, output, wait_for};
use crate::kube::{Cluster, NAMESPACE};
use crate::load::{Row, now};
use crate::pages;

const RATE: u32 = 200;

/// The commands of deploy/README.md from the namespace on, in a namespace under the restricted standard. Images
/// and cluster are there.
pub fn install(cluster: &Cluster) -> Result<Row> {
    let commands = pages::commands("deploy/README.md", "## Kubernetes")?;
    let (making, commands) = commands.split_once("\n\n").ok_or("no first paragraph")?;
    let is_known =
        |line: &str| line.starts_with("docker build ") || line.starts_with("kind create ");
    if !making.lines().all(is_known) || !commands.contains("enforce=restricted") {
        return Err(format!("the page changed: {making}").into());
    }
    let out = cluster.shell(commands)?;
    for expected in ["Phase:          Succeeded", "HTTP/1.1 200 OK", "12345"] {
        if !out.contains(expected) {
            return Err(format!("no {expected:?} in {out}").into());
        }
    }
    cluster.start_sender()?;
    // A node of two processors has to have room for all pods.
    // Its disk may be busy with other things.
    let slow = "config.http.answer_timeout_ms=10000";
    cluster.upgrade(&["replicaCount=3", "resources.requests.cpu=50m", slow])?;
    cluster.rolled_out()?;
    Ok(Row::default().note("a click in, its record out, `helm test` passed; then three pods"))
}

/// `helm test`, on all pods.
pub fn helm_test(cluster: &Cluster) -> Result<Row> {
    let out = output(cluster.command("helm").args(["test", "hookbridge"]))?;
    if !out.contains("Phase:          Succeeded") {
        return Err(out.into());
    }
    Ok(Row::default()
        .note("settings, topics, rights; a click through the Service, its record back"))
}

/// A second key is added in the Secret, and the first one removed, without a restart.
pub fn keys_changed(cluster: &Cluster) -> Result<Row> {
    let mut docker = cluster.command("docker");
    let made = output(docker.args(["run", "--rm", &cluster.image, "key", "--name", "second"]))?;
    let old = fs::read_to_string(cluster.path("key.txt"))?;
    for (name, text) in [("old", &old), ("new", &made)] {
        fs::write(cluster.path(name), line(text, "hb_")?)?;
    }
    let (old_key, new_key) = (cluster.path("old"), cluster.path("new"));
    cluster.secret("proof", &[("old", &old_key), ("new", &new_key)])?;
    cluster.restart_sender()?;
    let entry = |text| {
        let entry = line(text, "keys = [")?;
        Ok::<_, Box<dyn std::error::Error>>(entry.trim_end_matches(']').replace("keys = [", ""))
    };
    let (old, new) = (entry(&old)?, entry(&made)?);
    let set = |keys: &str| {
        let file = cluster.path("keys-in-force.toml");
        fs::write(&file, format!("keys = [{keys}]\n"))?;
        cluster.secret("hookbridge-keys", &[("keys.toml", &file)])
    };
    let before = pods(cluster)?;
    let row = cluster.loses_nothing(RATE, 180, || {
        set(&format!("{old}, {new}"))?;
        wait_for("every pod takes the new key", LONG, || is_everywhere(cluster, "new", 200))?;
        Ok("the second key was taken and the first one refused, without a restart".into())
    })?;
    set(&new)?;
    wait_for("no pod takes the old key", LONG, || is_everywhere(cluster, "old", 401))?;
    set(&old)?;
    wait_for("every pod takes the old key again", LONG, || is_everywhere(cluster, "old", 200))?;
    if pods(cluster)? != before {
        return Err("a pod was restarted".into());
    }
    Ok(row)
}

/// The line of a text that begins with this.
fn line<'t>(text: &'t str, start: &str) -> Result<&'t str> {
    let line = text.lines().find(|line| line.starts_with(start));
    Ok(line.ok_or_else(|| format!("no line begins with {start:?}"))?)
}

/// Whether each pod answers a click with this key by this status.
fn is_everywhere(cluster: &Cluster, key: &str, status: u16) -> Result<bool> {
    for pod in cluster.pods()? {
        let address = cluster.get(&format!("pod/{pod}"), ".status.podIP")?;
        let url = format!("http://{address}:8080/webhooks/email-marketing/click");
        let mut send = cluster.hookbridge_in("sender", SHORT, "send");
        send.args(["--url", &url, "--key-file", &format!("/proof/{key}"), "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&send.output()?.stdout)?;
        if report["statuses"][status.to_string()] != 1 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The pods, and how often their containers were restarted.
fn pods(cluster: &Cluster) -> Result<Vec<String>> {
    let state = |pod: String| {
        let path = ".metadata.uid}{.status.containerStatuses[0].restartCount";
        cluster.get(&format!("pod/{pod}"), path)
    };
    cluster.pods()?.into_iter().map(state).collect()
}

/// The release gets TLS, and then another pair, which the pods take without a restart.
pub fn certificate_changed(cluster: &Cluster) -> Result<Row> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    fs::write(cluster.path("ca.crt"), authority.self_signed(&authority_key)?.pem())?;
    let issuer = Issuer::new(authority, authority_key);
    let set_pair = |year: i32| {
        let mut pair = CertificateParams::new(vec![format!("hookbridge.{NAMESPACE}.svc")])?;
        pair.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate()?;
        let (certificate_file, key_file) = (cluster.path("tls.crt"), cluster.path("tls.key"));
        fs::write(&certificate_file, pair.signed_by(&key, &issuer)?.pem())?;
        fs::write(&key_file, key.serialize_pem())?;
        let files = [("tls.crt", &*certificate_file), ("tls.key", &*key_file)];
        cluster.secret("proof-tls", &files)
    };
    let expires = |pod: &str| cluster.metric(pod, "hookbridge_tls_certificate_expires_seconds");
    set_pair(2090)?;
    cluster.secret("proof", &[("ca.crt", &cluster.path("ca.crt"))])?;
    cluster.restart_sender()?;
    // `helm test` posts in plain HTTP.
    cluster.upgrade(&["tls.certSecret=proof-tls", "test.keySecret="])?;
    cluster.rolled_out()?;
    cluster.scheme.replace("https");
    let before = pods(cluster)?;
    let old = expires("hookbridge-0")?;
    let row = cluster.loses_nothing(RATE, 180, || {
        set_pair(2091)?;
        wait_for("every pod has the new pair", LONG, || {
            let pods = cluster.pods()?;
            Ok(pods.iter().all(|pod| expires(pod).is_ok_and(|time| time > old)))
        })?;
        Ok("three pods took the new pair without a restart".into())
    })?;
    if pods(cluster)? != before {
        return Err("a pod was restarted".into());
    }
    cluster.upgrade(&["tls.certSecret=", "test.keySecret=hookbridge-test"])?;
    cluster.rolled_out()?;
    cluster.scheme.replace("http");
    Ok(row)
}

/// Only the operator's namespace reaches the admin port, and the pods reach nothing but Kafka and names.
pub fn policies(cluster: &Cluster) -> Result<Row> {
    let address = cluster.get("pod/hookbridge-0", ".status.podIP")?;
    let sender = cluster.get("pod/sender", ".status.podIP")?;
    // `send` tells an answer, whatever its status, from silence.
    let reaches = |pod: &str, namespace: &str, url: &str| -> Result<bool> {
        let mut send = cluster.command("kubectl");
        send.args(["--namespace", namespace, "exec", pod, "--", "hookbridge", "send", "--json"]);
        send.args(["--timeout", "3s", "--url", url]);
        let output = send.output()?;
        let report: Option<serde_json::Value> = serde_json::from_slice(&output.stdout).ok();
        Ok(report.is_some_and(|report| report["statuses"] != json!({})))
    };
    let (http, admin) = (format!("http://{address}:8080/x"), format!("http://{address}:8081/x"));
    let (other, local) = (format!("http://{sender}:8080/x"), "http://127.0.0.1:8080/x");
    cluster.kubectl(&["delete", "namespace", "monitoring", "--ignore-not-found"])?;
    cluster.kubectl(&["create", "namespace", "monitoring"])?;
    let run = ["-n", "monitoring", "run", "probe", "--image", &cluster.image, "--", "dev"];
    cluster.kubectl(&run)?;
    let ready = ["-n", "monitoring", "wait", "--for=condition=Ready", "pod/probe"];
    cluster.kubectl(&ready)?;
    wait_for("monitoring reaches the admin port", SHORT, || {
        reaches("probe", "monitoring", &admin)
    })?;
    let expected = [
        ("a sender reaches the bridge", reaches("sender", NAMESPACE, &http)?, true),
        ("a sender reaches the admin port", reaches("sender", NAMESPACE, &admin)?, false),
        ("monitoring reaches the sender", reaches("probe", "monitoring", &other)?, true),
        ("the bridge reaches itself", reaches("hookbridge-0", NAMESPACE, local)?, true),
        ("the bridge reaches the sender", reaches("hookbridge-0", NAMESPACE, &other)?, false),
    ];
    for (what, found, expected) in expected {
        if found != expected {
            return Err(format!("{what}: {found}").into());
        }
    }
    cluster.kubectl(&["delete", "namespace", "monitoring", "--wait=false"])?;
    Ok(Row::default()
        .note("senders reach 8080 alone, monitoring 8081; pods reach only Kafka and names"))
}

/// The release is removed while clicks wait on its volumes, and installed again.
pub fn reinstalled(cluster: &Cluster) -> Result<Row> {
    cluster.stop_kafka()?;
    let (since, load) = (now(), cluster.load(RATE, 30)?);
    let sent = load.end()?;
    sent.all_held()?;
    let waiting = cluster.waiting_events()?;
    let helm = |arguments: &[&str]| output(cluster.command("helm").args(arguments));
    fs::write(
        cluster.path("my-values.yaml"),
        helm(&["get", "values", "hookbridge", "-o", "yaml"])?,
    )?;
    helm(&["uninstall", "hookbridge", "--wait", "--timeout", "3m"])?;
    let claims = cluster.kubectl(&["get", "pvc", "-o", "name"])?;
    let kept = claims.lines().filter(|name| name.contains("/spool-hookbridge-")).count();
    helm(&["install", "hookbridge", "deploy/chart", "-f", "my-values.yaml"])?;
    cluster.rolled_out()?;
    cluster.start_kafka()?;
    cluster.drained()?;
    let row = cluster.look_for(&sent, &since)?;
    Ok(row.note(format!("{waiting} clicks waited on disk, {kept} volumes were kept")))
}
