//! Shared by all fuzz targets: any bytes give records or causes, never a panic, no more of them than the
//! bytes can justify, and the same ones in slices.

use std::path::PathBuf;
use std::sync::OnceLock;

use moe_data::read::{self, FieldPaths, Format, Limits, MetadataFields, Slice, peek, slicing};

/// A file of this process, in memory if the system supports it.
fn path() -> &'static PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let shared = PathBuf::from("/dev/shm");
        let folder = if shared.is_dir() { shared } else { std::env::temp_dir() };
        folder.join(format!("moe-fuzz-{}", std::process::id()))
    })
}

/// Reads `bytes` as a file of this format, or of the one that its content shows.
pub fn read(bytes: &[u8], format: Option<Format>) {
    let path = path();
    std::fs::write(path, bytes).expect("a scratch file can be written");
    let name = |name: &str| Some(name.to_owned());
    let metadata = MetadataFields {
        quality: name("quality"),
        quality_edges: vec![0.5],
        language: name("language"),
        tags: name("tags"),
        date: name("date"),
        score: name("score"),
        url: name("url"),
    };
    for id in [None, name("id")] {
        let fields =
            FieldPaths { id, text: "text".to_owned(), metadata: metadata.clone(), ..FieldPaths::default() };
        let limits = Limits { max_doc_bytes: 100_000, ..Limits::default() };
        let records = |slice: Slice| {
            let mut reader =
                read::open(path, "name", format, slice, &fields, limits).expect("the file opens");
            let mut n_bytes = 0u64;
            std::iter::from_fn(move || reader.next_record().expect("the file can be read")).inspect(
                move |record| {
                    if let Ok(raw) = &record.content {
                        assert!(!raw.text.is_empty());
                        n_bytes += raw.text.len() as u64;
                    }
                    // A page of a few bytes can name a character of four by an entity; compressed text grows to the limit.
                    assert!(n_bytes <= 200 * bytes.len() as u64 + (64 << 20), "{n_bytes} bytes of text");
                },
            )
        };
        let n_bytes = bytes.len() as u64;
        let slices = slicing::cut(path, format, n_bytes, n_bytes / 4, limits).expect("the file can be cut");
        let together = slices.iter().flat_map(|(slice, _)| records(*slice));
        if slices.len() > 1 {
            assert!(together.eq(records(Slice::Whole)), "{slices:?} do not hold what the file holds");
        } else {
            together.for_each(drop);
        }
    }
    peek::field_names(path, format, Limits::default()).expect("the file can be read");
}
