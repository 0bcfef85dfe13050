use std::path::{Path, PathBuf};

use moe_shards::{Hash, TokenId, atomic};

use super::inputs::{CutDocuments, PlacedDocuments, Survivors};
use super::*;
use crate::decontaminate::Settings;
use crate::decontaminate::config::Action;
use crate::decontaminate::load::Benchmark;
use crate::decontaminate::stage::DecontaminateInputs;
use crate::dedup::cuts::PartParams;
use crate::dedup::cuts::config::{KeepCopy, Split};
use crate::dedup::earlier::stage::{EarlierCandidatesInputs, EarlierParams, EarlierShardInputs};
use crate::dedup::minhash::estimate::stage::{CompareInputs, EstimateParams, SampleInputs};
use crate::document::Count;
use crate::filter::chain::Measuring;
use crate::filter::{self as rules, FilterConfig};
use crate::json;
use crate::normalize::NormalizeConfig;
use crate::read::{FieldPaths, Limits, Slice};
use crate::recipe::dedup::MinhashConfig;
use crate::recipe::inputs::InputFile;
use crate::rephrase::orphans::OrphansInputs;
use crate::tables::sort::range::KeyRange;
use crate::tokenizer::EncoderOptions;

fn task(work: &Path, vocab_size: u32, input: &str) -> Task {
    let params = train::TrainParams { vocab_size, sample_bytes: 1, special_tokens: Vec::new() };
    let [documents, kept, removed, cuts] = [0; 4].map(|_| work.join(input));
    let parts = vec![CutDocuments { documents, kept, removed, cuts }];
    Task::new(work, 0, 0, params, train::TrainInputs { parts })
}

#[test]
fn fingerprints_follow_parameters_and_inputs_but_not_the_place() {
    let (a, b) = (Path::new("/a/work"), Path::new("/b/work"));
    let name = |task: Task| task.output.file_name().unwrap().to_owned();
    assert_eq!(name(task(a, 300, "x")), name(task(b, 300, "x")));
    assert_ne!(name(task(a, 300, "x")), name(task(a, 301, "x")));
    assert_ne!(name(task(a, 300, "x")), name(task(a, 300, "y")));
}

#[test]
fn a_finished_task_is_not_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let task = task(dir.path(), 300, "missing");
    assert!(run(&task, &Watch::idle()).is_err());
    let report = Report { read: Count::one(7), ..Report::default() };
    atomic::write_file(&task.file(task::REPORT), &json::canonical(&report)).unwrap();
    assert_eq!(run(&task, &Watch::idle()).unwrap(), report);
}

fn input() -> InputFile {
    InputFile {
        path: "/data/a.jsonl".into(),
        name: "a.jsonl".to_owned(),
        n_bytes: 7,
        changed_nanos: 1_700_000_000_123_456_789,
        etag: None,
        place: None,
    }
}

const WORK: &str = "/out/work";

/// A task of a stage with its name and fingerprint.
fn sample<S: Stage>(params: S, inputs: S::Inputs) -> (String, Task)
where
    Job: From<Call<S>>,
{
    let task = Task::new(Path::new(WORK), 0, 0, params.clone(), inputs.clone());
    let fingerprint = Call { params, inputs }.fingerprint((1, 1), Path::new(WORK));
    (format!("{}/{fingerprint}", S::NAME), task)
}

/// A task of each stage, with all inputs that it may have.
fn samples() -> Vec<(String, Task)> {
    let source = || "web".to_owned();
    let part = PartParams { part: 3, source: 1, has_families: true };
    let sketch = MinhashConfig::default().sketch();
    let against = EarlierParams {
        source: source(),
        shard: Hash::of(b"shard"),
        texts: 5,
        tokenizer: Hash::of(b"tokenizer"),
        sketch: Some(sketch),
        with_shingles: true,
    };
    let estimate = EstimateParams { sketch, part: 3 };
    let anchors = anchor::AnchorParams { min_bytes: 200, memory_bytes: 1 << 20 };
    let filter = FilterConfig {
        name: "length".to_owned(),
        sources: vec![source()],
        action: rules::Action::Tag,
        tag: Some("short".to_owned()),
        settings: serde_json::from_str(r#"{"min_chars":50}"#).unwrap(),
        files: Vec::new(),
    };
    let measuring = Measuring {
        name: "length".to_owned(),
        settings: rules::Settings::default(),
        files: vec![Hash::of(b"list")],
        cuts: true,
    };
    let read = read::ReadParams {
        source: source(),
        inputs: vec![input()],
        slice: Slice::Bytes { start: 1, end: 5 },
        format: None,
        encoding: None,
        fields: FieldPaths { text: "text".to_owned(), ..FieldPaths::default() },
        chat: None,
        variants: vec!["original".to_owned()],
        normalize: NormalizeConfig::default(),
        limits: Limits::default(),
        sample: Some(1000),
        limit: None,
    };
    let rephrased = RephrasedParams {
        source: source(),
        input: input(),
        variants: vec!["original".to_owned(), "simple".to_owned()],
        normalize: NormalizeConfig::default(),
    };
    let benchmark = Benchmark {
        name: "exam".to_owned(),
        files: vec![input()],
        fields: vec!["question".to_owned()],
        prefix: String::new(),
    };
    let decontaminate = DecontaminateParams {
        source: source(),
        settings: Settings::default(),
        action: Action::Tag,
        tag: Some("eval".to_owned()),
        min_chars_left: 50,
        benchmarks: vec![benchmark],
    };
    let verify = verify::VerifyParams {
        similarity: Some(verify::Similarity::Jaccard(0.7)),
        transitive: false,
        variant_copy: 0.9,
        n_parts: 2,
    };
    let shard = shard::ShardParams {
        name: "web-v0-00000".to_owned(),
        source: source(),
        source_index: 1,
        variant: 0,
        prefix_bits: 1,
        prefix: 1,
        vocab_size: 300,
        eod: TokenId(299),
        tokenizer: Hash::of(b"tokenizer"),
        build: Hash::of(b"build"),
        quality_edges: vec![0.25, 0.5],
        masked: true,
    };
    let tokenize = tokenize::TokenizeParams {
        source: source(),
        options: EncoderOptions::default(),
        verify_every: 1000,
        has_scores: true,
    };
    let paragraph =
        paragraph::ParagraphParams { part, split: Split::Line, min_chars: 80, memory_bytes: 1 << 20 };
    let range = KeyRange::all(1).nth(2).unwrap();
    let paragraph_match = paragraph::ParagraphMatchParams {
        min_documents: 3,
        keep: KeepCopy::First,
        range,
        memory_bytes: 1 << 20,
    };
    let substring = substring::SubstringParams { range, min_bytes: 200, memory_bytes: 1 << 20 };
    let apply = apply::ApplyParams {
        part: 3,
        sources: vec![source()],
        method: 1,
        min_bytes: Some(200),
        min_chars_left: 50,
    };
    let train =
        train::TrainParams { vocab_size: 300, sample_bytes: 1, special_tokens: vec!["<a>".to_owned()] };
    let path = |name: &str| Path::new(WORK).join(name);
    let paths = |names: &[&str]| -> Vec<PathBuf> { names.iter().map(|name| path(name)).collect() };
    let of = |name: &str, number: &str| path(&format!("{name}{number}"));
    let survivors =
        || Survivors { documents: path("documents"), kept: path("kept"), removed: path("removed") };
    let cut = |number: &str| {
        let [documents, kept, removed, cuts] =
            ["documents", "kept", "removed", "cuts"].map(|name| of(name, number));
        CutDocuments { documents, kept, removed, cuts }
    };
    let placed = |number: &str| {
        let CutDocuments { documents, kept, removed, cuts } = cut(number);
        PlacedDocuments { documents, kept, removed, cuts, families: of("families", number) }
    };
    let other =
        || EarlierShardInputs { mdx: path("mdx"), texts: path("texts"), tokenizer: path("tokenizer") };
    vec![
        sample(read, ()),
        sample(rephrased, ()),
        sample(
            OrphansParams { source: source() },
            OrphansInputs {
                accepted: path("accepted"),
                variants: cut(""),
                originals: vec![placed("2"), placed("3")],
            },
        ),
        sample(
            measure::MeasureParams { rules: vec![measuring] },
            measure::MeasureInputs { documents: path("documents") },
        ),
        sample(
            filter::FilterParams { source: source(), source_index: 1, filters: vec![filter] },
            filter::FilterInputs { documents: path("documents"), measures: Some(path("measures")) },
        ),
        sample(paragraph, placed("")),
        sample(
            paragraph_match,
            paragraph::ParagraphMatchInputs { paragraphs: paths(&["paragraphs1", "paragraphs2"]) },
        ),
        sample(anchor::Anchors(anchors), placed("")),
        sample(
            anchor::SharedAnchors { range, memory_bytes: 1 << 20 },
            anchor::SharedAnchorsInputs { anchors: paths(&["anchors1", "anchors2"]) },
        ),
        sample(
            segment::SegmentParams { part },
            segment::SegmentInputs {
                part: placed(""),
                anchors: path("anchors"),
                shared: paths(&["shared1", "shared2"]),
            },
        ),
        sample(substring, substring::SubstringInputs { segments: paths(&["segments1", "segments2"]) }),
        sample(
            apply,
            apply::ApplyInputs {
                part: placed(""),
                matches: paths(&["matches1", "matches2"]),
                documents: paths(&["documents", "documents2"]),
            },
        ),
        sample(decontaminate, DecontaminateInputs { part: cut(""), tags: Some(path("tags")) }),
        sample(sketch::SketchParams { sketch, has_family: true }, survivors()),
        sample(
            candidate_shingles::CandidateShinglesParams { sketch, with_shingles: true, has_family: true },
            candidate_shingles::CandidateShinglesInputs {
                documents: path("documents"),
                clustered: path("clustered"),
            },
        ),
        sample(
            verify,
            verify::VerifyInputs { members: path("chunk"), folders: paths(&["members1", "members2"]) },
        ),
        sample(EarlierKeys(against.clone()), other()),
        sample(
            EarlierCandidates(against),
            EarlierCandidatesInputs { shard: other(), clustered: path("clustered") },
        ),
        sample(SampleParams(estimate), SampleInputs { documents: path("documents"), chosen: path("chosen") }),
        sample(
            CompareParams(estimate),
            CompareInputs { part: survivors(), samples: paths(&["sample1", "sample2"]) },
        ),
        sample(train, train::TrainInputs { parts: vec![cut(""), cut("2")] }),
        sample(
            tokenize,
            tokenize::TokenizeInputs {
                part: placed(""),
                tokenizer: path("tokenizer"),
                tags: Some(path("tags")),
                scores: Some(path("scores")),
            },
        ),
        sample(shard, shard::ShardInputs { parts: paths(&["tokens1", "tokens2"]) }),
    ]
}

/// Work folders are found by these names: changing one means that every build reruns that stage. If
/// that is intended, change this crate's versions, which these names do not depend on.
const FINGERPRINTS: &str = "
read/318109046313d15f1672ea5c
rephrased/5d2e08056e017209b81a62fd
parents/ce18b507c7de5685bd9a5cba
measure/d1fa5d4335da7c8ba5aaece5
filter/ff8dff2ff90996cce6b8a669
paragraphs/d2951cecec15bbaf519387a6
paragraph_matches/7bf148d821fb65b304366797
anchors/78a41178b4759bc64e1b5117
shared_anchors/8a24a9b90b9587f243c578fa
segments/6665db331155f2096cf96e2c
substring_matches/5500fd7966435ec065b3cb90
apply_cuts/ea7549fe2e6093bd346bf706
decontaminate/0642e3524d557a15cf817e97
sketch/2a0750afe021e290a95a4b78
members/31080840a43eaed25236e928
verify/fa3d627f2670bf5bc3bc905b
against_keys/7f9c817c5096a8a5b442dd6c
against_members/9e7d7a56a0acd7b90e65da81
sample/a034a8ee319bea10c46242b3
compare/66b8bc6931020501b8c8034e
train/9dc0f9959efff5ce35497a93
tokenize/926653702d113793d5106a3e
shard/972f63ae599c0f97598b0b8a
";

#[test]
fn fingerprints_stay_what_they_are() {
    let names: Vec<String> = samples().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.join("\n"), FINGERPRINTS.trim(), "\n{}\n", names.join("\n"));
}

#[test]
fn a_task_goes_through_json_and_comes_back() {
    for (name, task) in samples() {
        let text = serde_json::to_string(&task).unwrap();
        assert_eq!(serde_json::from_str::<Task>(&text).unwrap(), task, "{name}");
        // What sorts the keys changes nothing.
        assert_eq!(serde_json::from_slice::<Task>(&json::canonical(&task)).unwrap(), task, "{name}");
    }
}
