//! Settings from files and variables, and the messages for wrong ones.

mod keys;
mod messages;

use std::collections::HashMap;
use std::path::PathBuf;

use hookbridge::config::{Config, Loaded, load};

const KEYS: &str = "[auth]\napi_key = \"a-key-of-the-tests\"\n";

/// Loads the settings from the text of a file and from variables.
pub fn from(file: &str, variables: &[(&str, &str)]) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hookbridge.toml");
    std::fs::write(&path, file).unwrap();
    load(Some(&path), environment(variables))
}

fn environment(variables: &[(&str, &str)]) -> HashMap<String, String> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[track_caller]
fn check_problems(file: &str, variables: &[(&str, &str)], expected: &[(&str, &str)]) {
    let loaded = from(file, variables);
    let problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (key, words) in expected {
        let found =
            problems.iter().any(|p| p.starts_with(&format!("{key}: ")) && p.contains(words));
        assert!(found, "no problem with {key} that says {words:?} in {problems:#?}");
    }
}

/// Only a key is missing.
#[test]
fn the_shipped_file_has_the_defaults() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/hookbridge.toml");
    let loaded = load(Some(&path), HashMap::new());
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.problems.len(), 1, "{:?}", loaded.problems);
    assert!(loaded.problems[0].message.contains("hookbridge key"), "{:?}", loaded.problems);
}

#[test]
fn the_environment_overrides_the_file() {
    let file = format!("{KEYS}[kafka]\nbrokers = \"file:9092\"\nack_timeout_ms = 1000\n");
    let variables = [
        ("HOOKBRIDGE__KAFKA__BROKERS", "one:9092,two:9092"),
        ("HOOKBRIDGE__HTTP__MAX_BODY_BYTES", "2000"),
        ("HOOKBRIDGE__KAFKA__OPTIONS__SASL_PASSWORD", "secret"),
        // Kubernetes sets this variable for a Service named hookbridge; it is not a setting.
        ("HOOKBRIDGE_PORT", "tcp://10.0.0.1:8080"),
        ("HOOKBRIDGE_SERVICE_HOST", "10.0.0.1"),
    ];
    let config = from(&file, &variables).into_result().unwrap();
    assert_eq!(config.kafka.brokers, "one:9092,two:9092");
    assert_eq!(config.kafka.ack_timeout_ms, 1_000);
    assert_eq!(config.http.max_body_bytes, 2_000);
    assert_eq!(config.kafka.options.iter().collect::<Vec<_>>(), [("sasl.password", "secret")]);
}

#[test]
fn kafka_options_may_be_quoted_or_not() {
    let file = "[auth]\napi_key = \"a-key-of-the-tests\"\n[kafka.options]\n\"security.protocol\" = \"SASL_SSL\"\n\
                sasl.mechanism = \"PLAIN\"\nsocket.keepalive.enable = true\nlinger.ms = 0.5\nretries = 3\n";
    let config = from(file, &[]).into_result().unwrap();
    let options: Vec<_> = config.kafka.options.iter().collect();
    assert_eq!(
        options,
        [
            ("linger.ms", "0.5"),
            ("retries", "3"),
            ("sasl.mechanism", "PLAIN"),
            ("security.protocol", "SASL_SSL"),
            ("socket.keepalive.enable", "true"),
        ]
    );
}

#[test]
fn every_problem_is_reported_at_once() {
    check_problems(
        "nonsense = 1\n\
         [http]\nlisten = \"here\"\nmax_body_bytes = \"many\"\nprot = 80\nanswer_timeout_ms = 2000\n\
         [kafka]\nbrokers = \"\"\n\
         [log]\nformat = \"xml\"\nlevel = \"loud\"\n",
        &[("HOOKBRIDGE__HTTP__MAX_HEADERS", "lots"), ("HOOKBRIDGE__KAFKA__BORKERS", "x")],
        &[
            (
                "nonsense",
                "no such setting; known here: admin, auth, http, kafka, log, pseudonym, spool, tracing, webhook",
            ),
            ("http.listen", "write it like \"0.0.0.0:8080\""),
            ("http.max_body_bytes", "many"),
            ("http.prot", "known here: answer_timeout_ms, body_timeout_ms"),
            ("http.answer_timeout_ms", "kafka.ack_timeout_ms + 1250 (= 2750, it is 2000)"),
            ("kafka.brokers", "host:port"),
            (
                "kafka.borkers",
                "is `brokers` meant? known here: ack_timeout_ms, aws_msk_iam, aws_region, brokers",
            ),
            ("log.format", "must be auto, text or json"),
            ("log.level", "error, warn, info"),
            ("http.max_headers", "lots"),
            ("auth", "hookbridge key"),
        ],
    );
}

#[test]
fn each_webhook_is_checked() {
    let entry = "[[webhook]]\nname = \"a b\"\npath = \"click\"\ntopic = \"x/y\"\nkey = \"campid\"\n\
                 timestamp = \"\"\nutc_offset = \"EST\"\ncolour = \"red\"\n";
    let good = "[[webhook]]\nname = \"good\"\npath = \"/good\"\ntopic = \"good\"\n";
    check_problems(
        &format!("{KEYS}{entry}{good}{good}"),
        &[],
        &[
            ("webhook[0].colour", "no such setting; known here: answer, "),
            ("webhook[0].name", "letters, digits and hyphens"),
            ("webhook[0].path", "start with /"),
            ("webhook[0].topic", "Kafka topic"),
            ("webhook[0].key", "JSON pointer"),
            ("webhook[0].timestamp", "JSON pointer"),
            ("webhook[0].utc_offset", "-05:00"),
            ("webhook[2].name", "another webhook"),
            ("webhook[2].path", "another webhook"),
        ],
    );
    // Written in other ways, it is the same path.
    for path in ["/good/", "//good", "/%67ood", "/x/../good"] {
        let alike = good.replace("name = \"good\"", "name = \"alike\"").replace("/good", path);
        check_problems(
            &format!("{KEYS}{good}{alike}"),
            &[],
            &[("webhook[1].path", "another webhook")],
        );
    }
    check_problems(
        &format!("{KEYS}[[webhook]]\nname = \"x\"\npath = \"/x\"\n{good}"),
        &[],
        &[("webhook[0]", "needs `topic`")],
    );
}

#[test]
fn each_timeout_is_shorter_than_the_next() {
    check_problems(
        &format!("{KEYS}[http]\ndrain_timeout_ms = 10000\nbody_timeout_ms = 0\n"),
        &[],
        &[("http.body_timeout_ms", "from 1")],
    );
    check_problems(
        &format!("{KEYS}[http]\ndrain_timeout_ms = 13000\n[kafka]\nack_timeout_ms = 1750\n"),
        &[],
        &[
            ("http.answer_timeout_ms", "(= 3000, it is 3000)"),
            ("http.drain_timeout_ms", "(= 13000, it is 13000)"),
        ],
    );
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let loaded = load(Some("/nowhere/hookbridge.toml".as_ref()), environment(&[]));
    assert!(loaded.problems[0].key.contains("/nowhere/hookbridge.toml"), "{:?}", loaded.problems);
    let broken = from("[http\n", &[]);
    assert!(broken.problems[0].key.contains("hookbridge.toml"), "{:?}", broken.problems);
    let keys = format!("{KEYS}keys_file = \"/nowhere/keys.toml\"\n");
    check_problems(&keys, &[], &[("auth.keys_file", "/nowhere/keys.toml cannot be read")]);
}

#[test]
fn names_of_the_admin_port_are_checked() {
    let with = |names: &str| format!("{KEYS}[admin]\nhosts = [{names}]\n");
    check_problems(&with("\"hooks.example.com\", \"hookbridge-0.svc\""), &[], &[]);
    for name in ["http://a.example", "a.example:8081", "*", "", "a b", "[::1]"] {
        let expected = [("admin.hosts[1]", "without http:// and port")];
        check_problems(&with(&format!("\"a\", \"{name}\"")), &[], &expected);
    }
}

#[test]
fn trusted_proxies_are_checked() {
    let problem = |settings: &str, key: &str, words: &str| {
        check_problems(&format!("{KEYS}[http]\n{settings}\n"), &[], &[(key, words)]);
    };
    problem("proxy_protocol = true", "http.trusted_proxies", "must name the balancers");
    let everybody = "trusted_proxies = [\"10.0.0.0/8\", \"::/0\"]";
    problem(everybody, "http.trusted_proxies", "must not name everybody");
    problem("trusted_proxies = [\"10.0.0.1\"]", "http.trusted_proxies[0]", "10.0.0.1/32");
    problem("forwarded_header = \"x forwarded\"", "http.forwarded_header", "a header's name");
    let good = "trusted_proxies = [\"10.0.0.0/8\"]\nproxy_protocol = true";
    from(&format!("{KEYS}[http]\n{good}\n"), &[]).into_result().unwrap();
}

#[test]
fn auth_schemes_are_read_or_refused_with_advice() {
    let entry = |auth: &str| {
        let at = "[[webhook]]\nname = \"a\"\npath = \"/a\"\ntopic = \"a\"\n";
        format!("{KEYS}{at}auth = {auth}\n")
    };
    let signing = |more: &str| {
        entry(&format!("{{ type = \"hmac-sha256\", header = \"X-Signature\"{more} }}"))
    };
    let timed = ", prefix = \"v0=\", signed = \"v0:{timestamp}:{body}\", encoding = \"base64\", \
                 timestamp_header = \"X-Time\", tolerance_s = 60";
    for (file, expected) in [
        (KEYS.to_owned(), "auth = \"bearer\"\n"),
        (entry("\"basic\""), "auth = \"basic\"\n"),
        (entry("{ type = \"basic\" }"), "auth = \"basic\"\n"),
        (entry("\"path-secret\""), "auth = \"path-secret\"\n"),
        (entry("{ type = \"header\", header = \"X-Key\" }"), "header = \"X-Key\"\n"),
        (signing(""), "encoding = \"hex\"\n"),
        (signing(timed), "signed = \"v0:{timestamp}:{body}\"\n"),
    ] {
        let config = from(&file, &[]).into_result().unwrap();
        let printed = toml::to_string(&config).unwrap();
        assert!(printed.contains(expected), "{printed}");
        assert_eq!(toml::from_str::<Config>(&printed).unwrap().webhook, config.webhook);
    }
    let problem = |file: String, words: &str| {
        check_problems(&file, &[], &[("webhook[0].auth", words)]);
    };
    problem(entry("\"digest\""), "must be one of `bearer`, `basic`, `header`, `hmac-sha256`");
    problem(entry("7"), "a name such as \"basic\", or a table with a `type`");
    problem(entry("{ header = \"X-Key\" }"), "`type`");
    problem(entry("\"header\""), "needs `header`: write a table");
    problem(entry("{ type = \"header\", header = \"X Key\" }"), "header must be a header's name");
    problem(
        entry("{ type = \"header\", header = \"X-Key\", colour = 1 }"),
        "colour: there is no such setting",
    );
    problem(signing(", hader = \"X\""), "is `header` meant?");
    problem(signing(", encoding = \"rot13\""), "must be `hex` or `base64`");
    problem(signing(", signed = \"{timestamp}\""), "must have {body} once");
    problem(signing(", signed = \"{body}{id}\""), "must have {body} once");
    problem(signing(", signed = \"{timestamp}.{body}\""), "timestamp_header must say where");
    problem(signing(", timestamp_header = \"X-Time\""), "of no use unless signed has {timestamp}");
    problem(signing(&timed.replace("60", "0")), "more than 0");
    problem(signing(&timed.replace("X-Time", "")), "timestamp_header must be a header's name");
    let sns = |more: &str| entry(&format!("{{ type = \"sns\"{more} }}\nbody = \"sns\""));
    let topics = ", topics = [\"arn:aws:sns:eu-west-1:123456789012:clicks\"]";
    let right = sns(&format!("{topics}, confirm = true, proxy = \"http://proxy:3128\""));
    // Amazon SNS needs no key.
    let config = from(&right.replace(KEYS, ""), &[]).into_result().unwrap();
    let printed = toml::to_string(&config).unwrap();
    assert_eq!(toml::from_str::<Config>(&printed).unwrap().webhook, config.webhook);
    problem(sns(""), "topics must name your topics");
    problem(sns(", topics = []"), "topics must name your topics");
    problem(sns(", topics = [\"arn:aws:sqs:eu-west-1:1:a\"]"), "no ARN of a topic of Amazon SNS");
    for proxy in ["proxy:3128", "https://proxy:3128", "http://user:pass@proxy", "http://proxy/x"] {
        let proxy = format!("{topics}, proxy = \"{proxy}\"");
        problem(sns(&proxy), "proxy must be http://host:port");
    }
    problem(sns(&format!("{topics}, tolerance_s = 0")), "more than 0");
    let object = right.replace("body = \"sns\"", "body = \"array\"");
    check_problems(&object, &[], &[("webhook[0].body", "must be sns, as auth is")]);
    // With Amazon SNS the drain must allow for one more wait.
    let drain = "[http]\ndrain_timeout_ms = 13001\n";
    from(&format!("{KEYS}{drain}"), &[]).into_result().unwrap();
    let longer = [("http.drain_timeout_ms", "(= 16000, it is 13001)")];
    check_problems(&format!("{right}{drain}"), &[], &longer);
    let slash = entry("\"path-secret\"").replace("\"/a\"", "\"/a/\"");
    problem(slash, "let the path end without it");
    let hash = hookbridge::click::auth::format_hash(&hookbridge::click::auth::hash_key(b"key"));
    let keys = |key: &str| {
        signing("").replace("api_key = \"a-key-of-the-tests\"", &format!("keys = [{key}]"))
    };
    problem(keys(&format!("{{ name = \"x\", sha256 = \"{hash}\" }}")), "no key can sign");
    let signer = "{ name = \"x\", secret = \"a-shared-secret-\" }";
    from(&keys(signer), &[]).into_result().unwrap();
    for (key, words) in [
        ("{ name = \"x\" }".to_owned(), "or else secret"),
        (format!("{{ name = \"x\", secret = \"s\", sha256 = \"{hash}\" }}"), "leave one"),
        ("{ name = \"x\", secret = \"\" }".to_owned(), "must not be empty"),
        ("{ name = \"x\", secret = [\"zq\"] }".to_owned(), "must be a text in quotes"),
    ] {
        let loaded = from(&keys(&key), &[]);
        let problems = format!("{:?}", loaded.problems);
        assert!(problems.contains(words) && !problems.contains("zq"), "{key}: {problems}");
    }
}

/// An option that librdkafka does not know is named.
#[test]
fn kafka_options_cannot_weaken_the_promise() {
    for (option, words) in [
        ("acks = 1", "fixed at all"),
        ("\"request.required.acks\" = 0", "fixed at all"),
        ("\"enable.idempotence\" = false", "fixed at true"),
        ("partitioner = \"random\"", "murmur2_random"),
        ("\"message.timeout.ms\" = 0", "kafka.ack_timeout_ms"),
        ("\"bootstrap.servers\" = \"x\"", "kafka.brokers"),
        ("\"no.such.thing\" = 1", "No such configuration property"),
        ("\"compression.type\" = \"rar\"", "Invalid value"),
        ("\"max.in.flight\" = 10", "max.in.flight"),
        ("retries = 0", "retries"),
        ("\"ssl.ca.location\" = \"/nowhere\"\n\"security.protocol\" = \"SSL\"", "ssl.ca.location"),
    ] {
        let config =
            from(&format!("{KEYS}[kafka.options]\n{option}\n"), &[]).into_result().unwrap();
        let problems = hookbridge::kafka::check(&config);
        assert_eq!(problems.len(), 1, "{option}: {problems:?}");
        assert!(problems[0].to_string().contains(words), "{option}: {}", problems[0]);
    }
    for option in
        ["\"compression.type\" = \"zstd\"", "\"compression.type\" = \"gzip\"", "\"linger.ms\" = 5"]
    {
        let config =
            from(&format!("{KEYS}[kafka.options]\n{option}\n"), &[]).into_result().unwrap();
        assert_eq!(hookbridge::kafka::check(&config), [], "{option}");
    }
}

/// Checks every form in which settings are printed.
#[test]
fn secrets_never_print() {
    let hash = "0123456789abcdef".repeat(4);
    let file = format!(
        "[auth]\napi_key = \"the-one-plain-key\"\nkeys = [{{ name = \"x\", sha256 = \"{hash}\" }}, \
         {{ name = \"y\", secret = \"the-signing-secret\" }}]\n\
         [kafka.options]\n\"sasl.username\" = \"user\"\n\"sasl.password\" = \"pass-word\"\n\
         \"ssl.key.pem\" = \"pem-text\"\n\"ssl.key.password\" = \"key-word\"\n\
         \"sasl.oauthbearer.client.secret\" = \"client-word\"\n\
         \"sasl.oauthbearer.assertion.private.key.pem\" = \"assertion-pem\"\n\
         \"sasl.oauthbearer.assertion.private.key.passphrase\" = \"assertion-word\"\n"
    );
    let config = from(&file, &[]).into_result().unwrap();
    for printed in [format!("{config:?}"), toml::to_string(&config).unwrap()] {
        for secret in [
            "the-one-plain-key",
            hash.as_str(),
            "the-signing-secret",
            "pass-word",
            "pem-text",
            "key-word",
            "client-word",
            "assertion-",
        ] {
            assert!(!printed.contains(secret), "{printed}");
        }
        assert!(printed.contains("user"), "{printed}");
    }
}

/// A key is required, and fields that the bridge itself needs cannot be replaced.
#[test]
fn pseudonyms_are_checked() {
    let key = "0123456789abcdef".repeat(2);
    let with = |fields: &str, more: &str| {
        format!(
            "{KEYS}{more}\n[[webhook]]\nname = \"a\"\npath = \"/a\"\ntopic = \"a\"\nevent = \"click\"\n\
             key = \"/user/id\"\ninvalid = \"reject\"\npseudonymise = {fields}\n"
        )
    };
    let in_settings = format!("[pseudonym]\nkey = \"{key}\"");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("[pseudonym]\nkey_file = {:?}", path.display().to_string())
    };
    let in_file = file("key", format!("{key}\n").as_bytes());
    for more in [&in_settings, &in_file] {
        let fields = "[\"/email\", \"/user/email\", \"/type\"]";
        let config = from(&with(fields, more), &[]).into_result().unwrap();
        for printed in [format!("{config:?}"), toml::to_string(&config).unwrap()] {
            assert!(!printed.contains(&key), "{printed}");
        }
        assert!(config.webhooks().unwrap()[0].pseudonyms.is_some());
    }
    let place = "webhook[0].pseudonymise";
    let problem = |fields: &str, words: &str| {
        check_problems(&with(fields, &in_settings), &[], &[(place, words)]);
    };
    problem("[\"email\"]", "no JSON pointer");
    problem("[\"/user/id\"]", "this webhook's `key`");
    problem("[\"/user\"]", "this webhook's `key`");
    problem("[\"/timestamp/x\"]", "this webhook's `timestamp`");
    problem("[\"/event\"]", "this webhook's `event`");
    problem("[\"/a\", \"/a/b\"]", "another of these fields");
    problem("[\"/a\", \"/a\"]", "another of these fields");
    let no_key = with("[\"/email\"]", "");
    check_problems(&no_key, &[], &[(place, "HOOKBRIDGE__PSEUDONYM__KEY")]);
    let variable = [("HOOKBRIDGE__PSEUDONYM__KEY", key.as_str())];
    check_problems(&no_key, &variable, &[]);
    let kept = with("[\"/email\"]", &in_settings).replace("invalid = \"reject\"", "");
    check_problems(&kept, &[], &[(place, "invalid = \"reject\"")]);
    check_problems(
        &with("[]", "[pseudonym]\nkey = \"short\""),
        &[],
        &[("pseudonym.key", "32 bytes")],
    );
    check_problems(&with("[]", &in_file), &variable, &[("pseudonym.key_file", "take one")]);
    let not_text = file("binary", &[0xff; 40]);
    check_problems(&with("[]", &not_text), &[], &[("pseudonym.key_file", "not a text")]);
    let nowhere = "[pseudonym]\nkey_file = \"/nowhere/key\"";
    check_problems(&with("[]", nowhere), &[], &[("pseudonym.key_file", "cannot be read")]);
}

#[test]
fn tracing_is_checked() {
    let with = |endpoint: &str, ratio: &str| {
        format!("{KEYS}[tracing]\notlp_endpoint = \"{endpoint}\"\nsample_ratio = {ratio}\n")
    };
    for endpoint in ["", "http://collector:4318", "http://[::1]:4318/", "http://gate/prefix"] {
        for ratio in ["0", "0.5", "1"] {
            check_problems(&with(endpoint, ratio), &[], &[]);
        }
    }
    for endpoint in [
        "collector:4318",
        "https://collector:4318",
        "grpc://collector:4317",
        "http://",
        "http://user:word@collector:4318",
        "http://collector:4318/v1/traces",
        "http://collector:4318?x=y",
    ] {
        let expected = [("tracing.otlp_endpoint", "http://host:port")];
        check_problems(&with(endpoint, "1"), &[], &expected);
    }
    for ratio in ["-0.1", "1.5", "nan"] {
        check_problems(&with("", ratio), &[], &[("tracing.sample_ratio", "from 0 to 1")]);
    }
}

#[test]
fn limits_must_fit_each_other() {
    check_problems(
        &format!(
            "{KEYS}[spool]\nmax_bytes = 1000\n\
             [[webhook]]\nname = \"a\"\npath = \"/a\"\ntopic = \"a\"\ndead_letter_topic = \"a\"\n\
             [[webhook]]\nname = \"b\"\npath = \"/b\"\ntopic = \"b\"\ninvalid = \"ignore\"\n"
        ),
        &[],
        &[
            ("spool.max_bytes", "more than http.max_body_bytes"),
            ("webhook[0].dead_letter_topic", "not the topic itself"),
            ("webhook[1].invalid", "dead-letter or reject"),
        ],
    );
}
