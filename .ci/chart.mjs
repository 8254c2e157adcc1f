// Checks rendered charts (`NAME.yaml` in a folder) for what neither helm nor the schemas of Kubernetes
// check: references between objects, custom resources, pod security, and the settings, which the bridge
// itself reads. .ci/chart runs it beside the packages that it installs.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { parse as parseToml } from "smol-toml";
import { parse as parseYaml, parseAllDocuments } from "yaml";
import * as gateway from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1";
import * as operator from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

const [folder, program] = process.argv.slice(2);
const read = (path) => readFileSync(path, "utf8");
const render = (name) =>
  parseAllDocuments(read(`${folder}/${name}.yaml`), { version: "1.1" })
    .map((document) => document.toJS())
    .filter(Boolean);

const of = (objects, kind) => objects.filter((object) => object.kind === kind);
const one = (objects, kind) => {
  assert.equal(of(objects, kind).length, 1, `one ${kind}`);
  return of(objects, kind)[0];
};
const contains = (labels, selector) =>
  assert.ok(
    Object.entries(selector).length > 0 &&
      Object.entries(selector).every(([name, value]) => labels[name] === value),
    `${JSON.stringify(selector)} does not select ${JSON.stringify(labels)}`,
  );

// Names are unique, and short enough for the labels that Kubernetes derives from them.
function names(objects) {
  const seen = new Set();
  for (const { kind, metadata } of objects) {
    const place = `${kind}/${metadata.namespace ?? ""}/${metadata.name}`;
    assert.ok(!seen.has(place), `${place} is there twice`);
    seen.add(place);
    assert.match(metadata.name, /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/, place);
    const most = { StatefulSet: 52, KafkaTopic: 253 }[kind] ?? 63;
    assert.ok(metadata.name.length <= most, `${place} is longer than ${most}`);
    for (const value of Object.values(metadata.labels)) {
      assert.match(value, /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/, place);
    }
  }
}

// Every reference to another object, a label or a port has its target.
function wiring(objects) {
  const set = one(objects, "StatefulSet");
  const { labels } = set.spec.template.metadata;
  const ports = set.spec.template.spec.containers[0].ports.map(({ name }) => name);
  assert.deepEqual(ports, ["http", "admin"]);
  const httpPort = set.spec.template.spec.containers[0].ports[0].containerPort;
  contains(labels, set.spec.selector.matchLabels);
  const services = of(objects, "Service");
  const governing = services.find(({ metadata }) => metadata.name === set.spec.serviceName);
  assert.equal(governing?.spec.clusterIP, "None");
  for (const { spec } of services) {
    contains(labels, spec.selector);
    for (const { targetPort } of spec.ports) assert.ok(ports.includes(targetPort), targetPort);
  }
  for (const { spec } of of(objects, "PodDisruptionBudget"))
    contains(labels, spec.selector.matchLabels);
  const { otlp_endpoint } = settings(objects).tracing;
  const { aws_msk_iam, options } = settings(objects).kafka;
  const endpoint = options?.["sasl.oauthbearer.token.endpoint.url"];
  const tokens = aws_msk_iam ? 443 : endpoint && Number(new URL(endpoint).port || 443);
  for (const { spec } of of(objects, "NetworkPolicy")) {
    contains(labels, spec.podSelector.matchLabels);
    // Kafka and DNS; then the collector and the source of tokens, if there are any; then what values add.
    const isTest = (rule) => rule.ports[0].port === httpPort;
    const isToken = (rule) => rule.ports[0].port === tokens;
    const rest = spec.egress.slice(2).filter((rule) => !isTest(rule));
    assert.equal(rest.some(isToken), Boolean(tokens), "the source of tokens");
    const [collector] = rest.filter((rule) => !isToken(rule));
    const expected = otlp_endpoint && Number(new URL(otlp_endpoint).port || 80);
    assert.equal(collector?.ports[0].port ?? "", expected);
  }
  for (const { spec } of of(objects, "HorizontalPodAutoscaler")) {
    assert.equal(spec.scaleTargetRef.name, set.metadata.name);
    assert.equal(set.spec.replicas, spec.minReplicas, "where there is no cluster to ask");
  }
  const ingest = services.find(({ spec }) => spec.clusterIP !== "None");
  for (const { spec } of of(objects, "Ingress")) {
    for (const { backend } of spec.rules.flatMap(({ http }) => http.paths)) {
      assert.equal(backend.service.name, ingest.metadata.name);
      assert.equal(backend.service.port.name, ingest.spec.ports[0].name);
    }
  }
  for (const { name, port } of of(objects, "HTTPRoute").flatMap(
    ({ spec }) => spec.rules[0].backendRefs,
  )) {
    assert.deepEqual([name, port], [ingest.metadata.name, ingest.spec.ports[0].port]);
  }
  for (const { spec } of of(objects, "PodMonitor")) {
    contains(labels, spec.selector.matchLabels);
    assert.ok(ports.includes(spec.podMetricsEndpoints[0].port));
  }
  for (const { spec } of of(objects, "ServiceMonitor")) {
    contains(governing.metadata.labels, spec.selector.matchLabels);
    assert.throws(() => contains(ingest.metadata.labels, spec.selector.matchLabels));
    assert.equal(spec.endpoints[0].port, governing.spec.ports[0].name);
  }
  const others = of(objects, "Job").map(({ spec }) => spec.template).concat(of(objects, "Pod"));
  for (const { metadata } of others) {
    for (const { spec } of services)
      assert.throws(() => contains(metadata.labels, spec.selector));
  }
}

// Every pod conforms to the level "restricted", has no token, and mounts all its volumes.
function pods(objects) {
  const kinds = ["StatefulSet", "Job", "Pod"].flatMap((kind) => of(objects, kind));
  for (const { kind, spec } of kinds) {
    const pod = spec.template?.spec ?? spec;
    const containers = [...(pod.initContainers ?? []), ...pod.containers];
    assert.equal(pod.automountServiceAccountToken, false);
    assert.equal(pod.enableServiceLinks, false);
    assert.equal(pod.securityContext.runAsNonRoot, true);
    assert.equal(pod.securityContext.runAsUser, 10001);
    assert.equal(pod.securityContext.seccompProfile.type, "RuntimeDefault");
    for (const container of containers) {
      assert.equal(container.securityContext.allowPrivilegeEscalation, false);
      assert.equal(container.securityContext.readOnlyRootFilesystem, true);
      assert.deepEqual(container.securityContext.capabilities, { drop: ["ALL"] });
      assert.match(container.image, /^[a-z0-9./-]+(:[a-z0-9.]+|@sha256:[0-9a-f]{64})$/);
    }
    const volumes = [
      ...pod.volumes,
      ...(spec.volumeClaimTemplates ?? []).map(({ metadata }) => metadata),
    ];
    const named = volumes.map(({ name }) => name).sort();
    const mounts = containers.flatMap(({ volumeMounts }) => volumeMounts.map(({ name }) => name));
    assert.deepEqual([...new Set(mounts)].sort(), named, kind);
    const account = of(objects, "ServiceAccount")[0]?.metadata.name ?? "default";
    assert.equal(pod.serviceAccountName, account);
  }
}

// Custom resources match the schemas of their projects; no package has those of Strimzi.
function custom(objects) {
  for (const object of objects) {
    const model = operator[object.kind] ?? (object.kind === "HTTPRoute" && gateway.HTTPRoute);
    if (model) {
      assert.equal(object.apiVersion, new model().apiVersion);
      new model(object).validate();
    }
  }
  for (const { spec } of of(objects, "PrometheusRule")) {
    assert.deepEqual(spec, parseYaml(read("deploy/prometheus/rules.yml")));
  }
  for (const { data } of of(objects, "ConfigMap").filter(({ data }) => data["hookbridge.json"])) {
    assert.equal(data["hookbridge.json"].trim(), read("deploy/grafana/hookbridge.json").trim());
  }
  const topics = of(objects, "KafkaTopic");
  for (const { apiVersion, metadata, spec } of topics) {
    assert.match(apiVersion, /^kafka\.strimzi\.io\/v1(beta2)?$/);
    assert.ok(metadata.labels["strimzi.io/cluster"]);
    assert.deepEqual(Object.keys(spec), ["topicName", "partitions", "replicas", "config"]);
    assert.ok(
      [spec.partitions, spec.replicas, spec.config["min.insync.replicas"]].every(Number.isInteger),
    );
  }
  if (topics.length > 0) {
    const needed = settings(objects).webhook.flatMap(({ topic, dead_letter_topic }) => [
      topic,
      dead_letter_topic || `${topic}.dead-letter`,
    ]);
    assert.deepEqual(topics.map(({ spec }) => spec.topicName).sort(), needed.sort());
  }
}

const settingsText = (objects) =>
  of(objects, "ConfigMap").find(({ data }) => data["hookbridge.toml"]).data["hookbridge.toml"];
const settings = (objects) => parseToml(settingsText(objects));

// Creates the files of the pod, runs `hookbridge COMMAND` with them, and returns its output.
function bridge(name, objects, command) {
  const place = `${folder}/pod-${name}`;
  const pod = one(objects, "StatefulSet").spec.template.spec;
  const secrets = Object.fromEntries(
    of(objects, "Secret").map((secret) => [secret.metadata.name, secret.stringData]),
  );
  for (const part of ["config", "keys", "kafka", "kafka-token", "tls"])
    mkdirSync(`${place}/${part}`, { recursive: true });
  const local = settingsText(objects).replaceAll("/etc/hookbridge/", `${place}/`);
  writeFileSync(`${place}/config/hookbridge.toml`, local);
  const { secretName } = pod.volumes.find(({ name }) => name === "keys").secret;
  const known = `keys = [{ name = "one", sha256 = "${"0".repeat(64)}" }]`;
  const keys = secrets[secretName] ?? {
    [settings(objects).auth.keys_file.split("/").pop()]: known,
  };
  for (const [file, text] of Object.entries(keys)) writeFileSync(`${place}/keys/${file}`, text);
  for (const [file, source] of [
    ["ca.crt", "tls.crt"],
    ["tls.crt", "tls.crt"],
    ["tls.key", "tls.key"],
  ]) {
    for (const part of ["kafka", "kafka-token", "tls"])
      cpSync(`${folder}/${source}`, `${place}/${part}/${file}`);
  }
  const env = {};
  // A Secret from outside the chart may hold any value that is long enough for a key.
  const elsewhere = "any".repeat(12);
  for (const { name, value, valueFrom } of pod.containers[0].env) {
    const secret = valueFrom?.secretKeyRef;
    const text = value ?? (secret && (secrets[secret.name]?.[secret.key] ?? elsewhere));
    if (text !== undefined) env[name] = text.replaceAll("/etc/hookbridge/", `${place}/`);
  }
  const { status, stdout, stderr } = spawnSync(program, command, {
    env,
    encoding: "utf8",
    timeout: 60_000,
  });
  assert.equal(status, 0, `${name}: hookbridge ${command}: ${stdout}${stderr}`);
  return stdout;
}

// Flattens a tree to its leaves by path: {"http.listen": ...}.
const leaves = (tree, path = "") =>
  Object.entries(tree).flatMap(([name, value]) =>
    value !== null && typeof value === "object" && Object.keys(value).length > 0
      ? leaves(value, `${path}${name}.`)
      : [[`${path}${name}`, JSON.stringify(value)]],
  );

// With default values the settings are the shipped ones, except those that the chart must change.
function defaults() {
  const shipped = new Map(leaves(parseToml(read("config/hookbridge.toml"))));
  const inForce = new Map(leaves(parseToml(bridge("default", render("default"), ["config"]))));
  const all = [...new Set([...shipped.keys(), ...inForce.keys()])];
  const changed = all.filter((path) => shipped.get(path) !== inForce.get(path));
  assert.deepEqual(
    changed.filter((path) => !path.startsWith("auth.keys")).sort(),
    ["kafka.brokers", "spool.dir"],
    "settings that values.yaml changes",
  );
}

// values.schema.json has exactly the settings that the shipped file explains.
function schema() {
  const text = read("config/hookbridge.toml");
  const { properties } = JSON.parse(read("deploy/chart/values.schema.json")).properties.config;
  const known = Object.entries(properties).flatMap(([section, { properties, items }]) =>
    Object.keys(properties ?? items.properties).map((name) => `${section}.${name}`),
  );
  const shipped = Object.entries(parseToml(text)).flatMap(([section, table]) =>
    Object.keys([table].flat()[0]).map((name) => `${section}.${name}`),
  );
  // The chart sets these itself.
  const mine = (name) => name === "spool.dir" || name.startsWith("auth.");
  const explained = (name) =>
    new RegExp(`^#.*(\\b${name.split(".").pop()} = |\\[${name}\\])`, "m").test(text);
  const place = "config in values.schema.json";
  assert.deepEqual(
    shipped.filter((name) => !mine(name) && !known.includes(name)),
    [],
    `missing: ${place}`,
  );
  assert.deepEqual(
    known.filter((name) => !shipped.includes(name) && !explained(name)),
    [],
    `odd: ${place}`,
  );
}

// The files that docker-compose.yml names exist.
function compose() {
  const { services, volumes } = JSON.parse(read(`${folder}/compose.json`));
  for (const [name, { build, depends_on, volumes: mounts }] of Object.entries(services)) {
    for (const other of Object.keys(depends_on ?? {}))
      assert.ok(services[other], `${name}: ${other}`);
    for (const { type, source } of mounts ?? []) {
      assert.ok(type === "bind" ? existsSync(source) : source in volumes, `${name}: ${source}`);
    }
    if (build)
      assert.ok(existsSync(`${build.context}/${build.dockerfile}`), `${name}: ${build.dockerfile}`);
  }
  return Object.keys(services).length;
}

const files = readdirSync(folder).filter((file) => file.endsWith(".yaml"));
assert.ok(files.length >= 4, "the renders");
for (const name of files.map((file) => file.replace(".yaml", ""))) {
  const objects = render(name);
  for (const check of [names, wiring, pods, custom]) {
    try {
      check(objects);
    } catch (error) {
      console.error(`the render ${name} fails at ${check.name}`);
      throw error;
    }
  }
  console.log(`${name}: ${bridge(name, objects, ["check"]).trim().split("\n").pop().trim()}`);
}
defaults();
schema();
const version = /^version = "(.*)"$/m.exec(read("Cargo.toml"))[1];
assert.equal(parseYaml(read("deploy/chart/Chart.yaml")).appVersion, version, "appVersion");
console.log("settings, schema and version agree");
console.log(`docker-compose.yml: ${compose()} services`);
