//! Why a client is not let in: by the brokers, or by the endpoint of tokens.

use std::sync::Mutex;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::time::timeout;

use super::fault;
use crate::config::{Config, KafkaSettings, read_file};
use crate::http::{CertificateFault, Connector};
use crate::observe::lock;

/// How long to look at the certificate of one broker.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// An answer of a token endpoint may be a whole page.
const REASON_CHARS_MAX: usize = 300;

/// The most telling error that a client has reported.
#[derive(Default)]
pub(super) struct Trouble(Mutex<Option<(Code, String)>>);

impl Trouble {
    /// That no broker is up only follows from the others.
    pub fn note(&self, code: Code, reason: &str) {
        let mut noted = lock(&self.0);
        let rank = |code: Code| match code {
            Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL => 2,
            Code::AllBrokersDown => 0,
            _ => 1,
        };
        if noted.as_ref().is_none_or(|(last, _)| rank(*last) < rank(code)) {
            *noted = Some((code, one_line(reason)));
        }
    }

    /// What it is and what to do about it.
    pub fn explain(&self, config: &Config) -> Option<String> {
        let (code, reason) = lock(&self.0).clone()?;
        let fault = (code == Code::SSL).then(|| certificate_fault(&config.kafka)).flatten();
        let advice = fault.unwrap_or_else(|| fault::advice_on(code, &reason).to_owned());
        Some(format!("{reason}: {advice}"))
    }
}

/// A reason without the ends of lines, and not too long.
pub(super) fn one_line(reason: &str) -> String {
    let plain = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    match plain.char_indices().nth(REASON_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &plain[..end]),
        None => plain,
    }
}

/// What is wrong with a broker's certificate: librdkafka only says that something is.
fn certificate_fault(kafka: &KafkaSettings) -> Option<String> {
    let options = &kafka.options;
    let file = options.get("ssl.ca.location").filter(|location| *location != "probe");
    let authorities = match (options.get("ssl.ca.pem"), file) {
        (Some(pem), _) => Some(pem.as_bytes().to_owned()),
        (None, Some(file)) => Some(read_file("ssl.ca.location", file.as_ref()).ok()?),
        (None, None) => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let found = kafka.brokers.split(',').find_map(|broker| {
        let broker = broker.trim();
        let url = format!("https://{broker}/").parse().ok()?;
        let connector = Connector::new(&url, authorities.as_deref()).ok()?;
        let look = async { timeout(LOOK_TIMEOUT, connector.certificate_fault()).await.ok()? };
        Some((broker, runtime.block_on(look)?))
    });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    let (broker, fault) = found?;
    Some(match fault {
        CertificateFault::UnknownAuthority => format!(
            "the certificate of {broker} is of no authority that is trusted here; name it in ssl.ca.location \
             under [kafka.options]"
        ),
        CertificateFault::OtherName => format!(
            "the certificate of {broker} is for another name; write kafka.brokers, and the addresses that brokers \
             advertise, with the names in it"
        ),
        CertificateFault::Expired => format!(
            "the certificate of {broker} has expired, or the clock of this machine is ahead; renew it, or set the \
             clock"
        ),
        CertificateFault::NotYetValid => format!(
            "the certificate of {broker} is not valid yet: the clock of this machine is behind; set it"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_telling_error_is_kept() {
        let trouble = Trouble::default();
        assert_eq!(trouble.explain(&Config::default()), None);
        trouble.note(Code::AllBrokersDown, "1/1 brokers are down");
        trouble.note(Code::BrokerTransportFailure, "Connection\n refused");
        trouble.note(Code::SaslAuthenticationFailed, "wrong password");
        trouble.note(Code::BrokerTransportFailure, "Disconnected");
        let explained = trouble.explain(&Config::default()).expect("an explanation");
        assert!(explained.starts_with("wrong password: the brokers do not know"), "{explained}");
        assert_eq!(one_line("a\r\n  b\n"), "a b");
        assert_eq!(one_line(&"é".repeat(1_000)).chars().count(), REASON_CHARS_MAX + 3);
    }
}
