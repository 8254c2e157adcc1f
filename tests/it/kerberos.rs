//! Kerberos to a real Kafka, in a build with the feature `gssapi` (`.ci/more`). Needs MIT's KDC: `krb5-kdc`,
//! `krb5-admin-server`, `krb5-user`, `libsasl2-modules-gssapi-mit`.
#![cfg(feature = "gssapi")]

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::brokers::{Broker, Kafka, More, count, create_topic, run};
use crate::harness::ports;
use crate::harness::process::{Running, Serve};
use crate::harness::support::{click, config, until};

const REALM: &str = "EXAMPLE.COM";

/// Starts a KDC with a service `kafka/localhost` and a user `clicks`, and a key table for each.
fn start_kdc(folder: &Path) -> Running {
    let place = folder.display();
    let port = ports::free(Ipv4Addr::LOCALHOST).port();
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    write(
        "krb5.conf",
        format!(
            "[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n rdns = false\n \
             udp_preference_limit = 1\n[realms]\n {REALM} = {{\n  kdc = 127.0.0.1:{port}\n }}\n\
             [domain_realm]\n localhost = {REALM}\n"
        ),
    );
    write(
        "kdc.conf",
        format!(
            "[kdcdefaults]\n kdc_ports = {port}\n kdc_tcp_ports = {port}\n[realms]\n {REALM} = {{\n  \
             database_name = {place}/principals\n  key_stash_file = {place}/stash\n }}\n"
        ),
    );
    let tool = |program: &str| {
        let mut command = Command::new(format!("/usr/sbin/{program}"));
        command
            .env("KRB5_CONFIG", folder.join("krb5.conf"))
            .env("KRB5_KDC_PROFILE", folder.join("kdc.conf"))
            .args(["-r", REALM]);
        command
    };
    run(tool("kdb5_util").args(["-P", "master", "create", "-s"]));
    for name in ["kafka/localhost", "clicks"] {
        let table = folder.join(format!("{}.keytab", name.split('/').next().unwrap()));
        run(tool("kadmin.local").args(["-q", &format!("addprinc -randkey {name}")]));
        run(tool("kadmin.local").args(["-q", &format!("ktadd -k {} {name}", table.display())]));
    }
    Running(tool("krb5kdc").arg("-n").stdout(Stdio::null()).spawn().unwrap())
}

#[tokio::test]
async fn a_click_lands_with_a_ticket() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display();
    let _kdc = start_kdc(folder.path());
    let port = ports::free(Ipv4Addr::LOCALHOST).port();
    let more = More {
        listeners: vec![("KERBEROS", port, "SASL_PLAINTEXT")],
        properties: format!(
            "sasl.kerberos.service.name=kafka\n\
             listener.name.kerberos.sasl.enabled.mechanisms=GSSAPI\n\
             listener.name.kerberos.gssapi.sasl.jaas.config=com.sun.security.auth.module.Krb5LoginModule \
             required useKeyTab=true storeKey=true keyTab=\"{place}/kafka.keytab\" \
             principal=\"kafka/localhost@{REALM}\";\n"
        ),
        java_options: format!("-Djava.security.krb5.conf={place}/krb5.conf"),
        ..More::default()
    };
    let kafka = Kafka::start_with(more).expect("a Kafka");
    let mut config = config(&Broker::Kafka(kafka.plaintext()));
    let topic = config.webhook[0].topic.clone();
    create_topic(&kafka.plaintext(), &topic, 1, 1, &[]).await;
    config.kafka.brokers = format!("localhost:{port}");
    let table = format!("{place}/clicks.keytab");
    for (name, value) in [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "GSSAPI"),
        ("sasl.kerberos.service.name", "kafka"),
        ("sasl.kerberos.principal", "clicks"),
        ("sasl.kerberos.keytab", &table),
    ] {
        config.kafka.options.set(name, value);
    }
    let first = format!("export KRB5_CONFIG={place}/krb5.conf KRB5CCNAME=FILE:{place}/tickets");
    let serve = Serve::launch(&config, folder.path(), &first);
    until("ready", async || serve.is_ready().await).await;
    assert_eq!(serve.post(click("7")).send().await.unwrap().status(), 200);
    assert_eq!(count(&kafka.plaintext(), &topic), 1);
}
