//! Keys in settings: their file, their restrictions, and those that are refused.

use super::{KEYS, check_problems, from};

#[test]
fn keys_are_also_read_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let hash =
        hookbridge::click::auth::format_hash(&hookbridge::click::auth::hash_key(b"a filed key"));
    std::fs::write(&path, format!("keys = [{{ name = \"filed\", sha256 = \"{hash}\" }}]\n"))
        .unwrap();
    let file = format!("[auth]\nkeys_file = {:?}\n", path.display().to_string());
    let config = from(&file, &[]).into_result().unwrap();
    assert_eq!(config.auth.keys[0].name, "filed");
    check_problems(
        "[auth]\nkeys = [{ name = \"x\", sha256 = \"short\" }, { name = \"\", sha256 = \"\" }]\n",
        &[],
        &[
            ("auth.keys[0]", "64 hexadecimal digits"),
            ("auth.keys[1]", "64 hexadecimal digits"),
            ("auth.keys[1]", "needs a name"),
        ],
    );
}

#[test]
fn restrictions_of_keys_are_checked() {
    let hash = |key: &str| {
        hookbridge::click::auth::format_hash(&hookbridge::click::auth::hash_key(key.as_bytes()))
    };
    let key = |name: &str, rest: &str| {
        let hash = hash(&format!("the key of {name}"));
        format!("[[auth.keys]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{rest}\n")
    };
    for (begin, end) in [
        ("\"2026-11-24T00:00:00-05:00\"", "\"2027-01-31T00:00:00Z\""),
        ("2026-11-24T00:00:00-05:00", "2027-01-31T00:00:00Z"),
    ] {
        let rest = format!(
            "not_before = {begin}\nexpires_at = {end}\nwebhooks = [\"email-marketing-click\"]\n\
             networks = [\"10.0.0.0/8\", \"2001:db8::/32\"]"
        );
        let inline = from(&key("a", &rest), &[]).into_result().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        std::fs::write(&path, key("a", &rest).replace("auth.", "")).unwrap();
        let file = format!("[auth]\nkeys_file = {:?}\n", path.display().to_string());
        let filed = from(&file, &[]).into_result().unwrap();
        for key in [&inline.auth.keys[0], &filed.auth.keys[0]] {
            assert_eq!(key.not_before.unwrap().to_string(), "2026-11-24T05:00:00Z");
            assert_eq!(key.expires_at.unwrap().to_string(), "2027-01-31T00:00:00Z");
            assert_eq!(key.webhooks.as_ref().unwrap().len(), 1);
            assert_eq!(key.networks.as_ref().unwrap().len(), 2);
        }
        let printed = toml::to_string(&inline).unwrap();
        assert!(printed.contains("expires_at = \"2027-01-31T00:00:00Z\""), "{printed}");
    }
    let problem = |rest: &str, key_of: &str, words: &str| {
        check_problems(&format!("{KEYS}{}", key("a", rest)), &[], &[(key_of, words)]);
    };
    problem("expires_at = 2027-01-31", "auth.keys[0].expires_at", "RFC 3339");
    problem("expires_at = \"2027-01-31T00:00:00\"", "auth.keys[0].expires_at", "RFC 3339");
    problem("expires_at = 7", "auth.keys[0].expires_at", "RFC 3339");
    problem("networks = [\"::/0\", \"10.0.0.300/8\"]", "auth.keys[0].networks[1]", "10.0.0.0/8");
    problem("networks = []", "auth.keys[0]", "left out for any");
    problem("webhooks = []", "auth.keys[0]", "left out for all");
    problem("webhooks = [\"click\"]", "auth.keys[0]", "no webhook named click");
    problem("expires = \"2027-01-31T00:00:00Z\"", "auth.keys[0].expires", "is `expires_at` meant?");
    let both = "not_before = 2027-01-31T00:00:00Z\nexpires_at = 2027-01-31T00:00:00Z";
    problem(both, "auth.keys[0]", "after not_before");
}

/// Keys that anybody could try are refused, as are those that are there twice.
#[test]
fn weak_keys_are_refused() {
    let hash = |key: &str| {
        let hash = hookbridge::click::auth::hash_key(key.as_bytes());
        format!("sha256 = \"{}\"", hookbridge::click::auth::format_hash(&hash))
    };
    let secret = |key: &str| format!("secret = \"{key}\"");
    let entry = |name: &str, key: &str| format!("[[auth.keys]]\nname = \"{name}\"\n{key}\n");
    let basic = "[[webhook]]\nname = \"b\"\npath = \"/b\"\ntopic = \"b\"\nauth = \"basic\"\n";
    let for_other = "\nwebhooks = [\"other\"]";
    let other = "[[webhook]]\nname = \"other\"\npath = \"/o\"\ntopic = \"o\"\n";
    let public = "public_key = \"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEOJR66bHQspeHSWX/cbSn8j1FzVXMi3y3nOKe\
                  xIy0/Nfm3SeoOBTeKzX+g2//TScL5NWwqsT6JbJ2/0P7XBUpZQ==\"";
    let api = |key: &str| format!("[auth]\napi_key = \"{key}\"\n");
    let long = "user:a-password-long-enough";
    for (file, expected) in [
        (api("0123456789abcdef"), None),
        (
            api("0123456789abcde"),
            Some(("auth.api_key", "this key has 15 bytes, and fewer than 16")),
        ),
        (api("k"), Some(("auth.api_key", "this key has 1 byte"))),
        (api(" 0123456789abcde\\n"), Some(("auth.api_key", "this key has 15 bytes"))),
        (api(" "), Some(("auth.api_key", "must not be empty"))),
        (api("demo-key"), Some(("auth.api_key", "is an example of the documentation"))),
        // Of a pair only the password is secret.
        (api(long) + basic, None),
        (
            api("a-long-user-name:password") + basic,
            Some(("auth.api_key", "the password of this pair")),
        ),
        (api("a-long-user-name:password"), None),
        (entry("a", &secret("0123456789abcdef")), None),
        (entry("a", &secret("0123456789abcde")), Some(("auth.keys[0]", "has 15 bytes"))),
        (entry("a", &secret("short-or-not")), Some(("auth.keys[0]", "say allow_short = true"))),
        (entry("a", &(secret("short") + "\nallow_short = true")), None),
        (entry("a", &secret("")), Some(("auth.keys[0]", "must not be empty"))),
        (
            entry("a", &(secret("") + "\nallow_short = true")),
            Some(("auth.keys[0]", "must not be empty")),
        ),
        (
            entry("a", &(secret("a-user:short") + for_other)) + basic + other,
            Some(("auth.keys[0]", "this key has 12")),
        ),
        (entry("a", &(secret("a-long-user-name:short") + for_other)) + basic + other, None),
        (
            entry("a", &secret("a-long-user-name:short")) + basic,
            Some(("auth.keys[0]", "of this pair has 5")),
        ),
        (
            entry("a-partner-in-spain", &secret("a-partner-in-spain")),
            Some(("auth.keys[0]", "its own name")),
        ),
        (
            entry("a-partner-in-spain", &secret("u:a-partner-in-spain")) + basic,
            Some(("auth.keys[0]", "its own name")),
        ),
        (entry("Partner", &hash("Partner")), Some(("auth.keys[0]", "its own name"))),
        (entry("Partner", &hash("partner")), Some(("auth.keys[0]", "its own name"))),
        (entry("partner", &hash("partner:partner")), Some(("auth.keys[0]", "its own name"))),
        (entry("a", &hash("demo-key")), Some(("auth.keys[0]", "example of the documentation"))),
        (
            entry("a", &hash("user:password")),
            Some(("auth.keys[0]", "example of the documentation")),
        ),
        // The length of what is hashed is not known.
        (entry("a", &hash("k")), None),
        (
            entry("a", &(hash("k") + "\nallow_short = true")),
            Some(("auth.keys[0]", "allow_short is for a secret")),
        ),
        // The old and the new key of one sender.
        (entry("a", &hash("old")) + &entry("a", &hash("new")), None),
        (
            entry("a", &hash(long)) + &entry("a", &hash(long)),
            Some(("auth.keys[1]", "the same key as auth.keys[0]")),
        ),
        (
            entry("a", &hash(long)) + &entry("b", &secret(long)),
            Some(("auth.keys[1]", "the same key as auth.keys[0]")),
        ),
        (
            entry("a", public) + &entry("b", public),
            Some(("auth.keys[1]", "the same key as auth.keys[0]")),
        ),
        (
            api(long) + &entry("b", &secret(long)),
            Some(("auth.keys[0]", "the same key as auth.api_key")),
        ),
        (api(long) + &entry("api_key", &hash("new")), Some(("auth.keys[0]", "take another"))),
    ] {
        check_problems(&file, &[], expected.as_slice());
    }
}
