//! Signatures of forms, as Mandrill and Twilio make them: HMAC-SHA1 over the address as the sender knows it
//! and the fields, in the order of their names.

use hyper::HeaderMap;
use hyper::header::HeaderName;

use super::signature::Encoding;
use super::{Signature, SignatureAlgorithm, only, refuse};
use crate::click::event::form::Form;
use crate::click::outcome::Rejection;

/// How forms are signed.
#[derive(Debug)]
pub struct FormSigning {
    /// Where the signature is, in base64.
    pub header: HeaderName,
    /// The address of the webhook, exactly as the sender has it.
    pub url: String,
}

impl FormSigning {
    /// Reads the signature of a request, and what it is over.
    ///
    /// # Errors
    ///
    /// `Refusal::Unauthorized`.
    pub fn read(&self, headers: &HeaderMap, body: &[u8]) -> Result<Signature, Rejection> {
        let tag = Encoding::Base64.decode(only(headers, &self.header)?);
        let tag = tag.ok_or_else(|| refuse("The signature is not base64"))?;
        let form =
            Form::read(body).map_err(|_| refuse("The body is not a form, which is signed"))?;
        let mut text = self.url.clone();
        for (name, value) in form.sorted() {
            text.push_str(&name);
            text.push_str(&value);
        }
        Ok(Signature::of_text(SignatureAlgorithm::HmacSha1, tag, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::click::auth::scheme::tests::header_map;
    use crate::click::auth::{Key, Keys, Restrictions};

    /// The signature is that of
    /// `printf '%s' "https://example.com/hook?a=ba1 2b[]" | openssl dgst -sha1 -hmac secret-1 -binary | base64`.
    #[test]
    fn a_signed_form_opens() {
        let signing = FormSigning {
            header: HeaderName::from_static("x-mandrill-signature"),
            url: "https://example.com/hook?a=b".into(),
        };
        let keys = Keys::new([
            Key::of_secret("other", b"secret-2", Restrictions::default()),
            Key::of_secret("one", b"secret-1", Restrictions::default()),
        ]);
        let check = |body: &[u8], sent: &str, expected: &str| {
            let found = signing.read(&header_map(&[("X-Mandrill-Signature", sent)]), body);
            let found = found.and_then(|signature| {
                keys.find_signer(&signature, body, "click").map(|key| key.name().to_string())
            });
            assert_eq!(found.unwrap_or_else(|why| why.detail.into_owned()), expected);
        };
        let right = "rykN5wRmEmqviuEIiYXZVL798/M=";
        check(b"b=%5B%5D&a=1+2", right, "one");
        check(b"a=1%202&b=[]", right, "one");
        let nobody = "No key made the signature of this body";
        check(b"a=1+3&b=[]", right, nobody);
        check(b"", right, nobody);
        check(b"a=1+2&b=[]", "AAAA", nobody);
        check(b"a=1+2&b=[]", "!", "The signature is not base64");
        check(b"a=%ff", right, "The body is not a form, which is signed");
        let missing = signing.read(&HeaderMap::new(), b"").map(drop).map_err(|why| why.detail);
        assert_eq!(missing, Err("The header x-mandrill-signature is missing".into()));
    }
}
