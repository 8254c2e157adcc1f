//! What is said of a setting that cannot be read: what it must be, as it should be written.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use config::{Value, ValueKind};

/// Sections whose values may be secrets, and are not quoted.
const SECRET_SECTIONS: [&str; 3] = ["auth", "pseudonym", "kafka"];

/// The message about a value that has another type or form than its setting, from that of the library.
pub(super) fn message(place: &str, value: Option<&Value>, error: &str) -> String {
    // The library appends the setting and the file, which is said before.
    let error = error.split(" for key `").next().unwrap_or(error);
    let text = value.and_then(text);
    let section = place.split(['.', '[']).next().unwrap_or_default();
    let is_secret = SECRET_SECTIONS.contains(&section);
    let shown = match &text {
        Some(text) if !is_secret => format!(" (it is {text:?})"),
        _ => String::new(),
    };
    if error.contains("socket address") {
        return address(place, text.as_deref());
    }
    if error.contains("IP address") {
        return network(text.as_deref(), &shown);
    }
    if error.starts_with("data did not match any variant") {
        return "must be a text, a number, true or false".into();
    }
    if let Some(name) = error.strip_prefix("missing field ") {
        return match text.filter(|_| place.ends_with(".auth")) {
            Some(name_of) => format!(
                "needs {name}: write a table, such as {{ type = {name_of:?}, header = \"X-Signature\" }}"
            ),
            None => format!("needs {name}"),
        };
    }
    let Some((what, expected)) = error.split_once(", expected ") else {
        return error.to_owned();
    };
    let of = |start: &str| what.strip_prefix(start).and_then(|rest| rest.split('`').nth(1));
    if let Some(name) = of("unknown field ") {
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        return match place.rsplit('.').next() == Some(name) {
            true => unknown_setting(name, &known),
            false => format!("{name}: {}", unknown_setting(name, &known)),
        };
    }
    if let Some(name) = of("unknown variant ") {
        let it_is = if is_secret { String::new() } else { format!(" (it is {name:?})") };
        return format!("must be {expected}{it_is}");
    }
    let is_variable = value.and_then(Value::origin) == Some("the environment");
    match expected.split(' ').next().unwrap_or_default() {
        // Within a table, such as that of `auth`, only the library has the value.
        "an" | "u64" | "u32" | "u16" | "usize" => {
            let quoted =
                what.strip_prefix("invalid type: string ").map(|text| text.trim_matches('"'));
            number(place, text.as_deref().or(quoted), is_secret, expected)
        }
        "a" if expected.contains("floating") => format!("must be a number such as 0.5{shown}"),
        "a" if expected.contains("boolean") => format!("must be true or false{shown}"),
        "a" if place == "kafka.brokers" => {
            "must be one text in quotes, such as \"kafka-1:9092,kafka-2:9092\"".into()
        }
        "a" if expected.contains("string") => "must be one text in quotes".into(),
        "a" if expected.contains("sequence") => {
            list(place, is_variable, text.filter(|_| !is_secret))
        }
        "struct" | "a" if place.starts_with("auth.keys") => ENTRY.into(),
        "struct" | "a" => format!("is a section: its settings stand below a line [{place}]"),
        _ if is_secret && what.starts_with("invalid ") && value.is_some() => {
            format!("is something else, expected {expected}")
        }
        _ => error.to_owned(),
    }
}

const ENTRY: &str = "must be entries such as keys = [{ name = \"opptima\", sha256 = \"...\" }], which \
                     `hookbridge key` prints";

/// The value as somebody has written it, if it is one text or number.
fn text(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::Table(_) | ValueKind::Array(_) | ValueKind::Nil => None,
        _ => value.clone().into_string().ok(),
    }
}

/// An unknown setting.
fn unknown_setting(name: &str, known: &[&str]) -> String {
    unknown("setting", name, known)
}

/// What has an unknown name, with the name that may have been meant.
pub(super) fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let likeness = |known: &str| strsim::jaro_winkler(name, known);
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let meant = match nearest.filter(|nearest| likeness(nearest) > 0.8) {
        Some(nearest) => format!("; is `{nearest}` meant?"),
        None => ";".into(),
    };
    format!("there is no such {what}{meant} known here: {}", known.join(", "))
}

/// The address of a listener.
fn address(place: &str, text: Option<&str>) -> String {
    let text = text.unwrap_or_default();
    let text = text.rsplit("//").next().unwrap_or_default().trim_end_matches('/');
    let default = if place.starts_with("admin") { 8081 } else { 8080 };
    let (host, port) = match (text.parse::<IpAddr>(), text.rsplit_once(':')) {
        (Err(_), Some((host, port))) => (host, port.parse().ok()),
        (Err(_), None) => ("", text.parse().ok()),
        (Ok(_), _) => (text, None),
    };
    let ip = match host.trim_matches(['[', ']']) {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        host => host.parse().ok(),
    };
    let ip = ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let right = SocketAddr::new(ip, port.unwrap_or(default));
    format!("must be an IP address and a port: write it like \"{right}\"")
}

/// A network, such as those of balancers.
fn network(text: Option<&str>, shown: &str) -> String {
    let address = text.and_then(|text| text.parse::<IpAddr>().ok());
    match address {
        Some(address) => {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            format!("must be a network: write this one address \"{address}/{bits}\"")
        }
        None => format!("must be a network such as \"10.0.0.0/8\"{shown}"),
    }
}

fn list(place: &str, is_variable: bool, text: Option<String>) -> String {
    match place {
        _ if is_variable => {
            "is a list, which a variable cannot hold: put it into the settings file".into()
        }
        "webhook" => "is a list: write [[webhook]] above each entry, in two brackets".into(),
        "auth.keys" => ENTRY.into(),
        _ => {
            let text = text.unwrap_or_else(|| "...".into());
            format!("must be a list: write it in brackets, [{text:?}]")
        }
    }
}

/// What a property of librdkafka must be, whose name ends with its unit, too.
pub(crate) fn not_a_number(property: &str, text: &str) -> String {
    number(&property.replace('.', "_"), Some(text), false, "")
}

/// A whole number, in the unit that the setting's name says.
fn number(place: &str, text: Option<&str>, is_secret: bool, expected: &str) -> String {
    let name = place.rsplit('.').next().unwrap_or(place);
    let (what, units): (&str, &[(&str, f64)]) = match name {
        _ if name.contains("bytes") => ("a number of bytes", &BYTES),
        _ if name.ends_with("_ms") => ("a number of milliseconds", &MILLISECONDS),
        _ if name.ends_with("_s") => ("a number of seconds", &SECONDS),
        // The one number in the table of an auth scheme.
        "auth" => ("a number of seconds in tolerance_s", &SECONDS),
        _ => ("a whole number", &[]),
    };
    let is_number = |text: &&str| text.parse::<f64>().is_ok();
    let most = if expected.contains("16 bit") { u64::from(u16::MAX) } else { u64::from(u32::MAX) };
    let is_large = text.is_some_and(|text| text.parse::<u64>().is_ok_and(|number| number > most));
    match (text.and_then(|text| convert(text, units)), text) {
        (Some(right), _) => format!("must be {what}, without a unit: write {right}"),
        (None, Some(text)) if is_large => format!("must be {what}, {most} at most (it is {text})"),
        (None, Some(text)) if is_number(&text) => {
            format!("must be {what}, 0 or more (it is {text})")
        }
        (None, Some(text)) if !is_secret => format!("must be {what} (it is {text:?})"),
        (None, _) => format!("must be {what}"),
    }
}

/// `MB` is decimal, `MiB` binary (IEC 80000-13), `M` binary as in most servers' settings.
const BYTES: [(&str, f64); 16] = [
    ("b", 1.0),
    ("bytes", 1.0),
    ("k", 1024.0),
    ("ki", 1024.0),
    ("kib", 1024.0),
    ("kb", 1e3),
    ("m", 1_048_576.0),
    ("mi", 1_048_576.0),
    ("mib", 1_048_576.0),
    ("mb", 1e6),
    ("g", 1_073_741_824.0),
    ("gi", 1_073_741_824.0),
    ("gib", 1_073_741_824.0),
    ("gb", 1e9),
    ("tib", 1_099_511_627_776.0),
    ("tb", 1e12),
];

const SECONDS: [(&str, f64); 9] = [
    ("ms", 1e-3),
    ("s", 1.0),
    ("sec", 1.0),
    ("seconds", 1.0),
    ("m", 60.0),
    ("min", 60.0),
    ("minutes", 60.0),
    ("h", 3_600.0),
    ("d", 86_400.0),
];

const MILLISECONDS: [(&str, f64); 8] = [
    ("ms", 1.0),
    ("s", 1e3),
    ("sec", 1e3),
    ("seconds", 1e3),
    ("m", 60e3),
    ("min", 60e3),
    ("minutes", 60e3),
    ("h", 3_600e3),
];

/// `1.5 MiB` as the number that is right; none if it is no whole one.
fn convert(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let right = digits.parse::<f64>().ok()? * factor;
    let is_whole = right.fract() == 0.0 && right < u64::MAX as f64 / 2.0;
    is_whole.then_some(right as u64)
}
