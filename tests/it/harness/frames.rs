//! Handmade frames of HTTP/2 (RFC 9113), for an attacker.

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The setting that limits the bytes of an answer in flight.
pub const INITIAL_WINDOW_SIZE: u16 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The preface of a connection, with these settings.
pub fn hello(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let settings = settings
        .iter()
        .flat_map(|(name, value)| name.to_be_bytes().into_iter().chain(value.to_be_bytes()));
    hello.extend(frame(SETTINGS, 0, 0, &settings.collect::<Vec<u8>>()));
    hello
}

/// A request's head in the simplest form of RFC 7541: without table and Huffman code.
pub fn head(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(0);
        for text in [name, value] {
            // From 127 on the length takes several bytes.
            assert!(text.len() < 127, "{text}");
            head.push(u8::try_from(text.len()).unwrap());
            head.extend(text.as_bytes());
        }
    }
    head
}
