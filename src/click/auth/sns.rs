//! Messages of Amazon SNS, each signed in the body with a certificate that it names and that has to be
//! fetched. Which addresses may be fetched is decided here, from the configured topics alone: anybody may
//! have a topic there, with valid signatures.

use std::ops::RangeInclusive;

use data_encoding::BASE64;
use jiff::{SignedDuration, Timestamp};
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, RsaParameters,
    UnparsedPublicKey,
};
use serde::Deserialize;
use x509_parser::oid_registry::OID_PKCS1_RSAENCRYPTION;
use x509_parser::pem::parse_x509_pem;

use super::signature::check_time;
use super::{Caller, refuse};
use crate::click::outcome::Rejection;

/// The longest name of a certificate, in characters.
const NAME_MAX: usize = 64;

/// Which messages of Amazon SNS are taken.
#[derive(Debug)]
pub struct Sns {
    /// The topics whose messages are taken.
    pub topics: Vec<Topic>,
    /// Whether subscriptions to them are confirmed.
    pub confirm: bool,
    /// How far a message's time may be from the time of receipt.
    pub tolerance: SignedDuration,
}

/// A topic: `arn:aws:sns:REGION:ACCOUNT:NAME`.
#[derive(Debug)]
pub struct Topic {
    arn: String,
    host: String,
}

/// A message that claims to be of a known topic and of now. Only [`Message::verify`] proves it.
#[derive(Debug)]
pub struct Message<'w> {
    pub kind: Kind,
    pub topic: &'w Topic,
    signed: String,
    signature: Vec<u8>,
    algorithm: &'static RsaParameters,
    /// The path, at the topic's host, of the certificate that it claims to be signed with.
    pub certificate: String,
    /// The path and query, at the topic's host, that confirm the subscription of the message.
    pub confirmation: Option<String>,
}

/// What a message is about, by Amazon's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Kind {
    /// What was published to the topic.
    Notification,
    /// A subscription that waits to be confirmed.
    SubscriptionConfirmation,
    /// A subscription that ended.
    UnsubscribeConfirmation,
}

/// The key and the validity of a certificate, in Unix seconds.
#[derive(Debug)]
pub struct Certificate {
    key: Vec<u8>,
    validity: RangeInclusive<i64>,
}

/// The fields of a message that are signed or needed.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    r#type: Kind,
    message_id: String,
    topic_arn: String,
    message: String,
    subject: Option<String>,
    token: Option<String>,
    #[serde(rename = "SubscribeURL")]
    subscribe_url: Option<String>,
    timestamp: String,
    signature_version: String,
    signature: String,
    #[serde(rename = "SigningCertURL")]
    signing_cert_url: String,
}

impl Topic {
    /// Reads a topic's ARN. None for anything else, or in a partition whose hosts are not known.
    pub fn parse(arn: &str) -> Option<Topic> {
        let parts: Vec<&str> = arn.split(':').collect();
        let ["arn", partition, "sns", region, account, name] = parts[..] else { return None };
        let end = match partition {
            "aws" | "aws-us-gov" => "",
            "aws-cn" => ".cn",
            _ => return None,
        };
        let is_made_of = |text: &str, is_right: fn(u8) -> bool| {
            !text.is_empty() && text.len() <= 256 && text.bytes().all(is_right)
        };
        let is_topic = is_made_of(region, |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && is_made_of(account, |b| b.is_ascii_digit())
            && is_made_of(name, |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        let host = format!("sns.{region}.amazonaws.com{end}");
        is_topic.then(|| Topic { arn: arn.to_owned(), host })
    }

    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// The only host that is connected to for its messages.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path in the address of a certificate of this topic's region; none for any other address.
    fn certificate<'u>(&self, url: &'u str) -> Option<&'u str> {
        let path = self.path(url)?;
        let name = path.strip_prefix("/SimpleNotificationService-")?.strip_suffix(".pem")?;
        let is_name = (1..=NAME_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_name.then_some(path)
    }

    /// The path and query in an address that confirms a subscription to this topic; none for any other.
    fn confirmation<'u>(&self, url: &'u str, token: &str) -> Option<&'u str> {
        let path = self.path(url)?;
        let query = path.strip_prefix("/?")?;
        let query = query.replace("%3A", ":");
        let mut pairs: Vec<&str> = query.split('&').collect();
        pairs.sort_unstable();
        let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let (token, topic) = (format!("Token={token}"), format!("TopicArn={}", self.arn));
        (is_token && pairs == ["Action=ConfirmSubscription", &token, &topic]).then_some(path)
    }

    /// The rest of an address at this topic's host.
    fn path<'u>(&self, url: &'u str) -> Option<&'u str> {
        url.strip_prefix("https://")?.strip_prefix(&*self.host)
    }
}

impl Sns {
    /// Reads a message, received at this time.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthorized`](crate::click::outcome::Refusal::Unauthorized) where no certificate could
    /// prove it.
    pub fn read(&self, body: &[u8], received: Timestamp) -> Result<Message<'_>, Rejection> {
        let fields: Fields = serde_json::from_slice(body)
            .map_err(|_| refuse("The body is no message of Amazon SNS"))?;
        let topic = self.topics.iter().find(|topic| topic.arn == fields.topic_arn);
        let topic = topic.ok_or_else(|| refuse("The message is not of a topic of this webhook"))?;
        check_time(&fields.timestamp, self.tolerance, received)?;
        let algorithm = match &*fields.signature_version {
            "1" => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            "2" => &RSA_PKCS1_2048_8192_SHA256,
            _ => return Err(refuse("The version of the signature is neither 1 nor 2")),
        };
        let signature = BASE64.decode(fields.signature.as_bytes());
        let signature = signature.map_err(|_| refuse("The signature is not in base64"))?;
        let certificate = topic.certificate(&fields.signing_cert_url);
        let wrong = "The certificate's address is none of Amazon SNS in the topic's region";
        let certificate = certificate.ok_or_else(|| refuse(wrong))?.to_owned();
        let mut confirmation = None;
        if fields.r#type == Kind::SubscriptionConfirmation {
            let url = fields.subscribe_url.as_deref().zip(fields.token.as_deref());
            let path = url.and_then(|(url, token)| topic.confirmation(url, token));
            let wrong = "The address does not confirm a subscription to the topic alone";
            confirmation = Some(path.ok_or_else(|| refuse(wrong))?.to_owned());
        }
        Ok(Message {
            kind: fields.r#type,
            topic,
            signed: fields.signed()?,
            signature,
            algorithm,
            certificate,
            confirmation,
        })
    }
}

impl Fields {
    /// The signed text: each name and each value on a line, ordered by name.
    fn signed(&self) -> Result<String, Rejection> {
        let (subject, url, token) = match self.r#type {
            Kind::Notification => (self.subject.as_ref(), None, None),
            _ => (None, self.subscribe_url.as_ref(), self.token.as_ref()),
        };
        let kind = format!("{:?}", self.r#type);
        let fields = [
            ("MessageId", Some(&self.message_id)),
            ("Subject", subject),
            ("SubscribeURL", url),
            ("Timestamp", Some(&self.timestamp)),
            ("Token", token),
            ("TopicArn", Some(&self.topic_arn)),
            ("Type", Some(&kind)),
        ];
        let mut signed = format!("Message\n{}\n", self.message);
        for (name, value) in fields.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            // A line of one field could be the name and value of another, and one signature would be
            // over two messages.
            if value.contains('\n') {
                return Err(refuse(format!("The field {name} has more than one line")));
            }
            signed.extend([name, "\n", value, "\n"]);
        }
        Ok(signed)
    }
}

impl Message<'_> {
    /// The caller, whose name is the topic's ARN, if the message is signed with this certificate, which
    /// must come from the address that it names.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthorized`](crate::click::outcome::Refusal::Unauthorized).
    pub fn verify(
        &self,
        certificate: &Certificate,
        received: Timestamp,
    ) -> Result<Caller, Rejection> {
        if !certificate.is_good_at(received) {
            return Err(refuse("The certificate is not valid at this time"));
        }
        let key = UnparsedPublicKey::new(self.algorithm, &certificate.key);
        key.verify(self.signed.as_bytes(), &self.signature)
            .map_err(|_| refuse("The certificate did not make the signature of this message"))?;
        Ok(Caller::named(&self.topic.arn))
    }
}

impl Certificate {
    /// Reads a certificate in PEM. None for anything else, or for a key that is not RSA.
    pub fn read(pem: &[u8]) -> Option<Certificate> {
        let (_, pem) = parse_x509_pem(pem).ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&pem.contents).ok()?;
        let (info, life) = (certificate.public_key(), certificate.validity());
        (info.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION).then(|| Certificate {
            key: info.subject_public_key.data.to_vec(),
            validity: life.not_before.timestamp()..=life.not_after.timestamp(),
        })
    }

    pub fn is_good_at(&self, time: Timestamp) -> bool {
        self.validity.contains(&time.as_second())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ARN: &str = "arn:aws:sns:us-east-1:123456789012:clicks";
    const CERTIFICATE: &str =
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123abcd.pem";

    fn topic() -> Topic {
        Topic::parse(ARN).expect("a topic")
    }

    #[test]
    fn a_topic_knows_its_host() {
        let host = |arn| Topic::parse(arn).map(|topic| topic.host);
        let is = |arn, expected: &str| assert_eq!(host(arn).as_deref(), Some(expected), "{arn}");
        is(ARN, "sns.us-east-1.amazonaws.com");
        is("arn:aws-us-gov:sns:us-gov-west-1:1:a_B-9", "sns.us-gov-west-1.amazonaws.com");
        is("arn:aws-cn:sns:cn-north-1:1:a", "sns.cn-north-1.amazonaws.com.cn");
        for arn in [
            "",
            "clicks",
            "arn:aws:sqs:us-east-1:123456789012:clicks",
            "arn:aws-iso:sns:us-iso-east-1:123456789012:clicks",
            "arn:aws:sns::123456789012:clicks",
            "arn:aws:sns:us-east-1::clicks",
            "arn:aws:sns:us-east-1:123456789012:",
            "arn:aws:sns:us-east-1:123456789012:clicks:12",
            "arn:aws:sns:us-east-1.evil.test/:123456789012:clicks",
            "arn:aws:sns:US-EAST-1:123456789012:clicks",
            "arn:aws:sns:us-east-1:123456789012:clicks&x=1",
            " arn:aws:sns:us-east-1:123456789012:clicks",
        ] {
            assert_eq!(host(arn), None, "{arn}");
        }
    }

    #[test]
    fn certificates_come_from_amazon_alone() {
        assert_eq!(
            topic().certificate(CERTIFICATE),
            Some("/SimpleNotificationService-0123abcd.pem")
        );
        let host = "sns.us-east-1.amazonaws.com";
        let file = "/SimpleNotificationService-0123abcd.pem";
        for url in [
            String::new(),
            format!("http://{host}{file}"),
            format!("HTTPS://{host}{file}"),
            format!("https:/{host}{file}"),
            format!(" https://{host}{file}"),
            format!("https://{host}.evil.test{file}"),
            format!("https://{host}@evil.test{file}"),
            format!("https://evil.test@{host}{file}"),
            format!("https://evil.test/{host}{file}"),
            format!("https://evil.test#@{host}{file}"),
            format!("https://evil.test\\@{host}{file}"),
            format!("https://{host}\\@evil.test{file}"),
            format!("https://{host}.{file}"),
            format!("https://{host}:443{file}"),
            format!("https://{host}:8443{file}"),
            format!("https://user:pass@{host}{file}"),
            format!("https://SNS.us-east-1.amazonaws.com{file}"),
            format!("https://xsns.us-east-1.amazonaws.com{file}"),
            format!("https://sns.us-east-1.amazonaws.com.cn{file}"),
            format!("https://sns.eu-west-1.amazonaws.com{file}"),
            format!("https://sns.us-east-1.amazonaws.co{file}"),
            format!("https://sns%2eus-east-1.amazonaws.com{file}"),
            format!("https://sns.us-east-1.s3.amazonaws.com{file}"),
            format!("https://bucket.s3.amazonaws.com{file}"),
            format!("https://s3.amazonaws.com/sns.us-east-1.amazonaws.com{file}"),
            format!("https://{host}/a{file}"),
            format!("https://{host}/..{file}"),
            format!("https://{host}/{file}"),
            format!("https://{host}{file}?a=b"),
            format!("https://{host}{file}#a"),
            format!("https://{host}{file} "),
            format!("https://{host}{file}\n"),
            format!("https://{host}{file}/.pem"),
            format!("https://{host}/SimpleNotificationService-.pem"),
            format!("https://{host}/SimpleNotificationService-01%2f.pem"),
            format!("https://{host}/SimpleNotificationService-01/../x.pem"),
            format!("https://{host}/SimpleNotificationService-01?x.pem"),
            format!("https://{host}/SimpleNotificationService-{}.pem", "0".repeat(65)),
            format!("https://{host}/simplenotificationservice-01.pem"),
            format!("https://{host}/Other-0123abcd.pem"),
            format!("https://{host}/?Action=ConfirmSubscription"),
            format!("https://{host}"),
            format!("file://{file}"),
        ] {
            assert_eq!(topic().certificate(&url), None, "{url}");
        }
    }

    #[test]
    fn what_is_visited_confirms_and_nothing_else() {
        let is = |query: &str| {
            let url = format!("https://sns.us-east-1.amazonaws.com{query}");
            topic().confirmation(&url, "2336ab").is_some()
        };
        let action = "Action=ConfirmSubscription";
        assert!(is(&format!("/?{action}&TopicArn={ARN}&Token=2336ab")));
        assert!(is(&format!("/?Token=2336ab&{action}&TopicArn={}", ARN.replace(':', "%3A"))));
        for query in [
            String::new(),
            format!("/{action}&TopicArn={ARN}&Token=2336ab"),
            format!("?{action}&TopicArn={ARN}&Token=2336ab"),
            format!("/x?{action}&TopicArn={ARN}&Token=2336ab"),
            format!(".evil.test/?{action}&TopicArn={ARN}&Token=2336ab"),
            format!(":443/?{action}&TopicArn={ARN}&Token=2336ab"),
            format!("/?Action=Unsubscribe&TopicArn={ARN}&Token=2336ab"),
            format!("/?{action}&{action}&TopicArn={ARN}&Token=2336ab"),
            format!("/?{action}&TopicArn={ARN}x&Token=2336ab"),
            format!("/?{action}&TopicArn={ARN}&Token=2336ac"),
            format!("/?{action}&TopicArn={ARN}&Token=2336ab&Action=Publish"),
            format!("/?{action}&TopicArn={ARN}&Token=2336ab#"),
            format!("/?{action}&TopicArn={ARN}"),
            format!("/?Action=Publish&{action}&Token=2336ab&TopicArn={ARN}"),
        ] {
            assert!(!is(&query), "{query}");
        }
        let url = format!("https://sns.us-east-1.amazonaws.com/?{action}&TopicArn={ARN}&Token=");
        assert_eq!(topic().confirmation(&url, ""), None);
        assert_eq!(topic().confirmation(&format!("{url}a b"), "a b"), None);
    }

    fn notification() -> Value {
        json!({
            "Type": "Notification",
            "MessageId": "4d4dc071-ddbf-465d-bba8-08f81c89da64",
            "TopicArn": ARN,
            "Message": "{\"a\":\n1}",
            "Timestamp": "2026-11-24T12:00:00.123Z",
            "SignatureVersion": "2",
            "Signature": "AAAA",
            "SigningCertURL": CERTIFICATE,
            "UnsubscribeURL": "https://example.com/",
        })
    }

    /// The text that is signed, or why there is none.
    fn read(body: &[u8]) -> String {
        let sns = Sns {
            topics: vec![topic()],
            confirm: false,
            tolerance: SignedDuration::from_secs(7_200),
        };
        let received = "2026-11-24T13:00:00Z".parse().expect("a time");
        sns.read(body, received).map_or_else(|why| why.detail.into_owned(), |read| read.signed)
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Value), expected: &str) {
        let mut message = notification();
        change(&mut message);
        assert_eq!(read(message.to_string().as_bytes()), expected, "{message}");
    }

    #[test]
    fn what_is_signed_depends_on_the_kind() {
        let begin = "Message\n{\"a\":\n1}\nMessageId\n4d4dc071-ddbf-465d-bba8-08f81c89da64\n";
        let time = "Timestamp\n2026-11-24T12:00:00.123Z\n";
        let end = format!("TopicArn\n{ARN}\nType\n");
        check(|_| {}, &format!("{begin}{time}{end}Notification\n"));
        check(|m| m["Subject"] = Value::Null, &format!("{begin}{time}{end}Notification\n"));
        let subject = format!("{begin}Subject\nA subject\n{time}{end}Notification\n");
        check(|m| m["Subject"] = "A subject".into(), &subject);
        let url = format!(
            "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={ARN}&Token=23a"
        );
        for kind in ["SubscriptionConfirmation", "UnsubscribeConfirmation"] {
            check(
                |m| {
                    m["Type"] = kind.into();
                    m["Subject"] = "Not signed".into();
                    m["Token"] = "23a".into();
                    m["SubscribeURL"] = url.as_str().into();
                },
                &format!("{begin}SubscribeURL\n{url}\n{time}Token\n23a\n{end}{kind}\n"),
            );
        }
    }

    #[test]
    fn what_no_certificate_could_prove_is_refused() {
        let none = "The body is no message of Amazon SNS";
        assert_eq!(read(b""), none);
        assert_eq!(read(b"[]"), none);
        check(|m| m["Type"] = "Other".into(), none);
        check(|m| m["Message"] = Value::Null, none);
        check(|m| m["Signature"] = 1.into(), none);
        let twice = notification().to_string().replacen('{', "{\"Message\":\"{}\",", 1);
        assert_eq!(read(twice.as_bytes()), none);
        let topic = "The message is not of a topic of this webhook";
        check(|m| m["TopicArn"] = "arn:aws:sns:us-east-1:666666666666:clicks".into(), topic);
        check(|m| m["TopicArn"] = ARN.to_uppercase().into(), topic);
        let time = "The timestamp is too far from the time of receipt";
        check(|m| m["Timestamp"] = "2026-11-24T10:59:59.999Z".into(), time);
        check(|m| m["Timestamp"] = "2026-11-24T15:00:00.001Z".into(), time);
        let no_time = "The timestamp is no Unix time and no date";
        check(|m| m["Timestamp"] = "now".into(), no_time);
        let version = "The version of the signature is neither 1 nor 2";
        check(|m| m["SignatureVersion"] = "3".into(), version);
        check(|m| m["Signature"] = "?".into(), "The signature is not in base64");
        let certificate = "The certificate's address is none of Amazon SNS in the topic's region";
        check(|m| m["SigningCertURL"] = "https://evil.test/a.pem".into(), certificate);
        let address = "The address does not confirm a subscription to the topic alone";
        check(|m| m["Type"] = "SubscriptionConfirmation".into(), address);
        let lines = |m: &mut Value| m["MessageId"] = "4\nTimestamp\n5".into();
        check(lines, "The field MessageId has more than one line");
        check(|m| m["Subject"] = "a\n".into(), "The field Subject has more than one line");
    }

    #[test]
    fn what_is_no_certificate_for_rsa_is_none() {
        assert!(Certificate::read(b"").is_none());
        assert!(Certificate::read(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END").is_none());
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::default().self_signed(&key).expect("one");
        assert!(Certificate::read(certificate.pem().as_bytes()).is_none());
    }
}
