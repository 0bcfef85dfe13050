//! Event files of TensorBoard: scalars by tag and step. The format is a sequence of TFRecords (length, masked
//! CRC-32C of the length, data, masked CRC-32C of the data), each an `Event` of
//! tensorflow/core/util/event.proto in the encoding of protocol buffers.

/// Name of the file in its folder; TensorBoard looks for `tfevents`.
pub const FILE: &str = "events.out.tfevents.0.moe";

/// Whether the first bytes of a file are those of an event file.
pub fn is_events(start: &[u8]) -> bool {
    start.windows(VERSION.len()).any(|window| window == VERSION)
}

/// The contents of the first event.
const VERSION: &[u8] = b"brain.Event:2";

/// An event file.
#[derive(Clone, Debug)]
pub struct Events {
    bytes: Vec<u8>,
}

impl Default for Events {
    fn default() -> Events {
        let mut events = Events { bytes: Vec::new() };
        let mut event = Vec::new();
        string(&mut event, 3, VERSION);
        events.record(&event);
        events
    }
}

impl Events {
    /// Adds the scalars of a step; `seconds` are those of training until then; TensorBoard has the time of
    /// day in their place.
    pub fn push<'a>(&mut self, seconds: f64, step: u64, scalars: impl IntoIterator<Item = (&'a str, f64)>) {
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            let mut scalar = Vec::new();
            string(&mut scalar, 1, tag.as_bytes());
            // Field 2, four bytes.
            scalar.push(2 << 3 | 5);
            scalar.extend((value as f32).to_le_bytes());
            string(&mut summary, 1, &scalar);
        }
        let mut event = Vec::new();
        double(&mut event, 1, seconds);
        varint(&mut event, 2 << 3);
        varint(&mut event, step);
        string(&mut event, 5, &summary);
        self.record(&event);
    }

    /// The file.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn record(&mut self, data: &[u8]) {
        let length = (data.len() as u64).to_le_bytes();
        self.bytes.extend(length);
        self.bytes.extend(masked_crc(&length).to_le_bytes());
        self.bytes.extend(data);
        self.bytes.extend(masked_crc(data).to_le_bytes());
    }
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// A field of eight bytes.
fn double(out: &mut Vec<u8>, field: u8, value: f64) {
    out.push(field << 3 | 1);
    out.extend(value.to_le_bytes());
}

/// A field with a length.
fn string(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `tensorboard.summary.writer.record_writer` of PyPI's tensorboard 2.21.0 writes the same two events.
    #[test]
    fn bytes_are_those_of_tensorboard() {
        let mut events = Events::default();
        events.push(1.5, 300, [("loss", 4.25)]);
        assert!(is_events(&events.bytes[..40]) && !is_events(b"notes"));
        let hex: String = events.into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "0f000000000000006d532b091a0d627261696e2e4576656e743a32fc9851291b000000000000001a0d9e1309000000000000f83f10ac022a0d0a0b0a046c6f73\
             731500008840018702bd"
        );
    }
}
