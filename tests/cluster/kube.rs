//! The cluster: `kubectl` and `helm`, a pod that sends and reads, and the release under test.

use std::cell::RefCell;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{LONG, Result, SHORT, output, stop, wait_for, within};
use crate::load::{Load, Row, Sent, now};

/// The namespace of deploy/README.md.
pub const NAMESPACE: &str = "clicks";

/// The path of the first webhook.
const PATH: &str = "/webhooks/email-marketing/click";

/// An image with a shell, for a fault that only a node's processes can have.
const SHELL_IMAGE: &str = "apache/kafka:4.1.1";

/// A cluster whose current namespace is that of the release.
pub struct Cluster {
    /// A copy of the settings of `kubectl`, keys, and the values of the release; a link to `deploy` as well, so
    /// that the commands of the pages can run here.
    pub folder: TempDir,
    pub image: String,
    /// How the senders' port is reached.
    pub scheme: RefCell<&'static str>,
}

/// The least number of ready pods since it was started.
pub struct ReadyPods(Child);

impl Cluster {
    pub fn open() -> Result<Cluster> {
        let folder = tempfile::tempdir()?;
        let view = ["config", "view", "--raw", "--flatten", "--minify"];
        let config = output(within(SHORT, "kubectl").args(view))?;
        fs::write(folder.path().join("kubeconfig"), config)?;
        std::os::unix::fs::symlink(fs::canonicalize("deploy")?, folder.path().join("deploy"))?;
        let image = env::var("HOOKBRIDGE_IMAGE").unwrap_or_else(|_| "hookbridge:0.1.0".into());
        Ok(Cluster { folder, image, scheme: RefCell::new("http") })
    }

    /// This program, with the settings of the cluster, in the folder.
    pub fn command(&self, program: &str) -> Command {
        self.command_within(LONG, program)
    }

    fn command_within(&self, time: Duration, program: &str) -> Command {
        let mut command = within(time, program);
        command.current_dir(self.folder.path());
        command.env("KUBECONFIG", self.folder.path().join("kubeconfig"));
        command
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output(self.command("kubectl").args(arguments))
    }

    /// Runs commands as a reader of the pages would.
    pub fn shell(&self, commands: &str) -> Result<String> {
        let script = format!(
            "set -euo pipefail\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n{commands}"
        );
        output(self.command("bash").args(["-c", &script]))
    }

    /// Creates or changes objects.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let file = self.path("objects.json");
        fs::write(&file, list.to_string())?;
        self.kubectl(&["apply", "-f", &file.to_string_lossy()]).map(drop)
    }

    /// Creates a Secret from files, or changes it.
    pub fn secret(&self, name: &str, files: &[(&str, &Path)]) -> Result<()> {
        let files =
            files.iter().map(|(key, path)| format!(" --from-file={key}={}", path.display()));
        let files: String = files.collect();
        let create =
            format!("kubectl create secret generic {name}{files} --dry-run=client -o yaml");
        self.shell(&format!("{create} | kubectl apply -f -")).map(drop)
    }

    /// Changes values of the release, without waiting for its pods.
    pub fn upgrade(&self, values: &[&str]) -> Result<()> {
        let mut helm = self.command("helm");
        helm.args(["upgrade", "hookbridge", "deploy/chart", "--reset-then-reuse-values"]);
        for value in values {
            helm.args(["--set", value]);
        }
        output(&mut helm).map(drop)
    }

    /// Waits until every pod of the release has the newest template and is ready.
    pub fn rolled_out(&self) -> Result<()> {
        let time = format!("--timeout={}s", LONG.as_secs());
        self.kubectl(&["rollout", "status", "statefulset/hookbridge", &time]).map(drop)
    }

    pub fn restart(&self) -> Result<()> {
        self.kubectl(&["rollout", "restart", "statefulset/hookbridge"])?;
        self.rolled_out()
    }

    /// Brings back the broker and three pods, after a step that failed.
    pub fn restore(&self) -> Result<()> {
        self.start_kafka()?;
        let test = "test.keySecret=hookbridge-test";
        self.upgrade(&["replicaCount=3", "autoscaling.enabled=false", "tls.certSecret=", test])?;
        self.scheme.replace("http");
        self.rolled_out()
    }

    pub fn stop_kafka(&self) -> Result<()> {
        self.kubectl(&["scale", "statefulset/broker", "--replicas=0"])?;
        self.kubectl(&["wait", "--for=delete", "pod/broker-0", "--timeout=120s"]).map(drop)
    }

    pub fn start_kafka(&self) -> Result<()> {
        self.kubectl(&["scale", "statefulset/broker", "--replicas=1"])?;
        self.kubectl(&["rollout", "status", "statefulset/broker", "--timeout=240s"]).map(drop)
    }

    /// A field of an object.
    pub fn get(&self, object: &str, path: &str) -> Result<String> {
        self.kubectl(&["get", object, "-o", &format!("jsonpath={{{path}}}")])
    }

    /// The names of the release's pods that serve.
    pub fn pods(&self) -> Result<Vec<String>> {
        let selector = "app.kubernetes.io/component=bridge";
        let names = self.kubectl(&["get", "pods", "-l", selector, "-o", "name"])?;
        Ok(names.lines().map(|name| name.trim_start_matches("pod/").to_owned()).collect())
    }

    /// The value of a metric without labels on a pod.
    pub fn metric(&self, pod: &str, name: &str) -> Result<f64> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8081/proxy/metrics");
        let metrics = output(self.command_within(SHORT, "kubectl").args(["get", "--raw", &path]))?;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.ok_or_else(|| format!("{pod} has no {name}"))?.parse()?)
    }

    /// Events on the disks of all running pods.
    pub fn waiting_events(&self) -> Result<u64> {
        let pods = self.pods()?;
        let events = pods.iter().map(|pod| self.metric(pod, "hookbridge_spool_events"));
        Ok(events.sum::<Result<f64>>()? as u64)
    }

    pub fn drained(&self) -> Result<()> {
        wait_for("no event waits on disk", LONG, || Ok(self.waiting_events()? == 0))
    }

    /// Makes the pod from which clicks are sent.
    pub fn start_sender(&self) -> Result<()> {
        self.start_pod("sender")
    }

    /// Makes a pod to send clicks from or to read records in. Its own bridge, with a broker inside, keeps it alive
    /// and is an address that the release's pods must not reach.
    fn start_pod(&self, name: &str) -> Result<()> {
        let key = json!({ "secretKeyRef": { "name": "hookbridge-test", "key": "key" } });
        self.apply(&[json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name },
            "spec": {
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "terminationGracePeriodSeconds": 1,
                "securityContext": {
                    "runAsNonRoot": true,
                    "runAsUser": 10001,
                    "runAsGroup": 10001,
                    "seccompProfile": { "type": "RuntimeDefault" },
                },
                "containers": [{
                    "name": "hookbridge",
                    "image": self.image,
                    "args": ["dev", "--listen", "0.0.0.0:8080"],
                    "env": [
                        { "name": "HOOKBRIDGE_API_KEY", "valueFrom": key },
                        { "name": "HOOKBRIDGE__KAFKA__BROKERS", "value": "broker:9092" },
                    ],
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true,
                        "capabilities": { "drop": ["ALL"] },
                    },
                    "volumeMounts": [{ "name": "proof", "mountPath": "/proof" }],
                }],
                "volumes": [
                    { "name": "proof", "secret": { "secretName": "proof", "optional": true } },
                ],
            },
        })])?;
        let pod = format!("pod/{name}");
        self.kubectl(&["wait", "--for=condition=Ready", &pod, "--timeout=60s"]).map(drop)
    }

    /// The sender sees a changed Secret only when it starts.
    pub fn restart_sender(&self) -> Result<()> {
        self.kubectl(&["delete", "pod/sender"])?;
        self.start_sender()
    }

    /// `hookbridge` in a pod.
    pub fn hookbridge_in(&self, pod: &str, time: Duration, command: &str) -> Command {
        let mut kubectl = self.command_within(time, "kubectl");
        kubectl.args(["exec", pod, "--", "hookbridge", command]);
        kubectl
    }

    /// Starts to send clicks to the Service.
    pub fn load(&self, rate: u32, seconds: u64) -> Result<Load> {
        let time = Duration::from_secs(seconds) + SHORT;
        let mut send = self.hookbridge_in("sender", time, "send");
        let scheme = *self.scheme.borrow();
        let port = if scheme == "https" { ":80" } else { "" };
        send.args(["--url", &format!("{scheme}://hookbridge.{NAMESPACE}.svc{port}{PATH}")]);
        if scheme == "https" {
            send.args(["--ca-file", "/proof/ca.crt"]);
        }
        Load::start(send, rate, seconds)
    }

    /// Looks for the clicks in Kafka, among the records since this time. None of those that were answered 200 may
    /// be missing.
    pub fn look_for(&self, sent: &Sent, since: &str) -> Result<Row> {
        self.reading(since, |tail| sent.look_for(tail))
    }

    /// Counts the clicks that are in Kafka by now.
    pub fn count(&self, sent: &Sent, since: &str) -> Result<Row> {
        self.reading(since, |tail| sent.count(tail, Duration::ZERO))
    }

    /// Reads the records since this time in a pod of its own, since a reader outlives the connection to it.
    fn reading(&self, since: &str, read: impl FnOnce(Command) -> Result<Row>) -> Result<Row> {
        self.start_pod("reader")?;
        let mut tail = self.hookbridge_in("reader", LONG, "tail");
        tail.args(["--json", "--from", since]);
        let row = read(tail);
        self.kubectl(&["delete", "pod/reader"])?;
        row
    }

    /// Sends clicks while `fault` happens. Every click has to be answered 200 and to get into Kafka.
    pub fn loses_nothing(
        &self,
        rate: u32,
        seconds: u64,
        fault: impl FnOnce() -> Result<String>,
    ) -> Result<Row> {
        let (since, load) = (now(), self.load(rate, seconds)?);
        let note = fault()?;
        let sent = load.end()?;
        sent.all_held()?;
        self.drained()?;
        Ok(self.look_for(&sent, &since)?.note(note))
    }

    /// Sends a signal to the process of a pod, from a pod with the node's rights in a namespace of its own.
    pub fn signal(&self, pod: &str, signal: &str) -> Result<()> {
        let (uid, node) = (self.get(&format!("pod/{pod}"), ".metadata.uid")?, ".spec.nodeName");
        let node = self.get(&format!("pod/{pod}"), node)?;
        // The name of a control group has dashes or underscores.
        let group = uid.replace('-', "[-_]");
        let script = format!(
            "for p in /proc/[0-9]*; do if grep -q '{group}' $p/cgroup && \
             grep -q '^hookbridge$' $p/comm; then kill -{signal} ${{p#/proc/}} && echo done; fi; done"
        );
        let namespace = "hookbridge-proof";
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": "signal", "namespace": namespace },
            "spec": {
                "nodeName": node,
                "hostPID": true,
                "restartPolicy": "Never",
                "containers": [{
                    "name": "shell",
                    "image": SHELL_IMAGE,
                    "command": ["bash", "-c", script],
                    "securityContext": { "privileged": true, "runAsUser": 0 },
                }],
            },
        });
        let home = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace },
        });
        self.apply(&[home, pod])?;
        wait_for("the signal is sent", SHORT, || {
            Ok(self.kubectl(&["-n", namespace, "logs", "signal"])?.contains("done"))
        })?;
        self.kubectl(&["delete", "namespace", namespace, "--wait=false"]).map(drop)
    }

    /// Watches how many pods are ready.
    pub fn ready_pods(&self) -> Result<ReadyPods> {
        let path = "jsonpath={.status.readyReplicas}{\"\\n\"}";
        let mut watch = self.command("kubectl");
        watch.args(["get", "statefulset/hookbridge", "--watch", "-o", path]);
        Ok(ReadyPods(watch.stdout(Stdio::piped()).spawn()?))
    }
}

impl ReadyPods {
    /// The least number since the start.
    pub fn least(mut self) -> Result<u32> {
        stop(&mut self.0)?;
        let output = self.0.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        // No pod is ready: the field is missing.
        let counts = text.lines().map(|line| line.parse().unwrap_or(0));
        counts.min().ok_or_else(|| "no number of ready pods was seen".into())
    }
}
