use std::io::Write;

use proptest::prelude::*;

use super::*;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 1).unwrap()
}

/// All bytes of a file, `!` for each damage, and the damages.
fn read(bytes: &[u8]) -> (Vec<u8>, Vec<Cause>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let mut stream = Stream::open(file.path(), Limits::default()).unwrap();
    let (mut out, mut damages) = (Vec::new(), Vec::new());
    loop {
        let n = match stream.fill().unwrap() {
            Ok([]) => return (out, damages),
            Ok(part) => {
                out.extend_from_slice(part);
                part.len()
            }
            Err(damage) => {
                damages.push(damage);
                out.push(b'!');
                if !stream.resume(|_| true).unwrap() {
                    return (out, damages);
                }
                0
            }
        };
        stream.consume(n);
    }
}

#[test]
fn members_and_frames_follow_each_other() {
    assert_eq!(read(b"plain"), (b"plain".to_vec(), vec![]));
    let padded = [&gzip(b"one ")[..], &[0; 5], &gzip(b""), &gzip(b"two"), &[0; 9]].concat();
    assert_eq!(read(&padded), (b"one two".to_vec(), vec![]));
    assert_eq!(read(&[zstd(b"one "), zstd(b"two")].concat()), (b"one two".to_vec(), vec![]));
}

#[test]
fn damage_costs_one_frame() {
    for pack in [gzip, zstd] {
        let (a, b, c) = (pack(b"first "), pack(b"second "), pack(b"third"));
        // In the header, so that nothing is decoded.
        let mut damaged = b.clone();
        damaged[3] ^= 0xff;
        let (text, damages) = read(&[&a[..], &damaged, &c].concat());
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.starts_with("first ") && text.ends_with("!third"), "{text}");
        assert_eq!(damages.len(), 1);
        let (text, damages) = read(&[&a[..], &c[..c.len() - 3]].concat());
        assert!(text.starts_with(b"first ") && text.ends_with(b"!"));
        assert_eq!(damages, [Cause::TruncatedStream]);
    }
    // A member that stops early makes the next one look like its end.
    let (a, b, c) = (gzip(b"first "), gzip(b"second "), gzip(b"third"));
    let (text, damages) = read(&[&a[..], &b[..b.len() - 5], &c].concat());
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.starts_with("first ") && text.ends_with("!third"), "{text}");
    assert_eq!(damages.len(), 1);
    let (text, damages) = read(&[&gzip(b"first")[..], b"no member"].concat());
    assert_eq!((&text[..], &damages[..]), (&b"first!"[..], &[Cause::CorruptStream][..]));
}

#[test]
fn bombs_stop_at_the_limit() {
    let zeros = vec![0; 100 << 20];
    for pack in [gzip, zstd] {
        let (text, damages) = read(&[&pack(&zeros)[..], &pack(b"next")].concat());
        assert_eq!(damages, [Cause::TooMuchExpansion]);
        assert!(text.len() as u64 <= FREE_EXPANSION_BYTES + 1);
    }
}

#[test]
fn a_window_over_the_limit_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(b"text").unwrap();
    let long = encoder.finish().unwrap();
    let (text, damages) = read(&[&long[..], &zstd(b"next")].concat());
    assert_eq!((&text[..], &damages[..]), (&b"!next"[..], &[Cause::WindowTooLarge][..]));
}

proptest! {
    #[test]
    fn any_bytes_end(
        frames in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)), 0..5),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes: Vec<u8> =
            frames.iter().flat_map(|(zip, text)| if *zip { gzip(text) } else { zstd(text) }).collect();
        for (at, byte) in flips {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let (_, damages) = read(&bytes);
        prop_assert!(damages.len() <= bytes.len() + 1);
    }
}
