//! Tests of the encoder as a whole.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const TOOL: &str = "<|tool|>";

/// Text with much that the families treat differently.
fn texts() -> Vec<String> {
    let mut texts = probe::strings(&[EOD]);
    texts.push("The quick brown fox jumps over the lazy dog; 1234567 times, it's said. ".repeat(20));
    texts
}

/// A small vocabulary trained with the splits of a family, with `<|endoftext|>` as id 0 and `<|tool|>` as 1.
fn file(family: Family) -> Value {
    use tokenizers::models::TrainerWrapper;
    use tokenizers::models::bpe::{BPE, BpeTrainer};
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    let splits: tokenizers::PreTokenizerWrapper = serde_json::from_value(family.pre_tokenizer()).unwrap();
    tokenizer.with_pre_tokenizer(Some(splits));
    let specials = [EOD, TOOL].map(|special| tokenizers::AddedToken::from(special, true));
    let trainer = BpeTrainer::builder()
        .vocab_size(900)
        .show_progress(false)
        .special_tokens(specials.to_vec())
        .initial_alphabet(tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect())
        .build();
    tokenizer.train(&mut TrainerWrapper::from(trainer), texts().into_iter()).unwrap();
    serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap()
}

fn load(file: &Value, options: &EncoderOptions) -> Result<Encoder> {
    let temporary = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(temporary.path(), file.to_string()).unwrap();
    Encoder::load(temporary.path(), options)
}

fn encoder(file: &Value) -> Encoder {
    load(file, &EncoderOptions::default()).unwrap()
}

static FILES: LazyLock<Vec<Value>> = LazyLock::new(|| Family::ALL.into_iter().map(file).collect());
static ENCODERS: LazyLock<Vec<Encoder>> = LazyLock::new(|| FILES.iter().map(encoder).collect());

fn of_family(family: Family) -> Value {
    FILES[Family::ALL.iter().position(|other| *other == family).unwrap()].clone()
}

fn same(encoder: &Encoder, text: &str) {
    let mut ids = Vec::new();
    encoder.encode_unchecked(text, &mut ids, encoder.fast.as_ref()).unwrap();
    assert_eq!(encoder.difference(text, &ids).unwrap(), None);
}

#[test]
fn every_family_is_on_the_fast_path() {
    for (family, encoder) in Family::ALL.into_iter().zip(&*ENCODERS) {
        let verdict = encoder.verdict();
        assert_eq!((verdict.engine.as_str(), verdict.reason.as_deref()), (FAST, None), "{family}");
        assert_eq!((verdict.family, verdict.n_probes), (Some(family), probe::N_STRINGS + 6));
        texts().iter().for_each(|text| same(encoder, text));
    }
}

#[test]
fn everything_is_derived() {
    let json: Value = serde_json::from_str(&train::train(texts().into_iter(), 300, &[]).unwrap()).unwrap();
    let encoder = encoder(&json);
    assert_eq!(encoder.verdict().family, Some(Family::Gpt2), "{}", encoder.verdict());
    assert_eq!((encoder.vocab_size(), encoder.eod(), encoder.bos()), (300, TokenId(0), None));
    let bytes = encoder.vocabulary().token_bytes();
    assert_eq!(bytes.len(), 300);
    assert_eq!(bytes[0], 0);
    assert!(bytes[1..257].iter().all(|&n| n == 1));
    for text in ["über w1\nw2", "日本 \u{1F600}", " <|endoftext|> "] {
        let ids = encoder.encode(text).unwrap();
        assert!(!ids.contains(&0), "{text}");
        let sum: usize = ids.iter().map(|&id| usize::from(bytes[id as usize])).sum();
        assert_eq!(sum, text.len(), "{text}");
        assert_eq!(encoder.vocabulary().text(&ids).as_deref(), Some(text));
    }
}

#[test]
fn a_file_that_is_no_tokenizer_is_named() {
    let error = load(&json!({}), &EncoderOptions::default()).err().unwrap();
    assert_eq!(error.exit_code(), 2);
}

/// Characters of every block, assigned or not, in contexts that the regular expressions examine.
#[test]
fn characters_of_every_block_are_split_alike() {
    let every = |c: &char| u32::from(*c) < 0x3100 || u32::from(*c) % 13 == 0;
    let characters: Vec<char> = (0..=0x10_ffff).filter_map(char::from_u32).filter(every).collect();
    for encoder in &*ENCODERS {
        for block in characters.chunks(64) {
            let text: String = block.iter().map(|c| format!("a{c} {c}{c}1{c}\n")).collect();
            same(encoder, &text);
        }
    }
}

/// Long texts are cut; where there is no place to cut, the reference takes over.
#[test]
fn texts_of_any_length_are_the_same() {
    let english = texts().last().unwrap().repeat(150);
    let chinese = "汉字和标点，都是一样的。".repeat(6_000);
    let mixed = texts().concat().repeat(2);
    let cuttable = [english, chinese, mixed, "line\n".repeat(30_000), "1234567890 ".repeat(12_000)];
    let whole = [
        "a".repeat(60_000),
        " ".repeat(60_000),
        "\n".repeat(60_000),
        "漢".repeat(30_000),
        "!".repeat(60_000),
    ];
    // Its own encoder, since other tests also count on the shared ones.
    for encoder in FILES.iter().map(encoder) {
        let encoder = &encoder;
        let before = encoder.n_by_reference();
        for text in &cuttable {
            same(encoder, text);
        }
        // The mixed text has parts that o200k leaves to the reference.
        let n_left = u64::from(encoder.verdict().family == Some(Family::O200k));
        assert_eq!(encoder.n_by_reference() - before, n_left);
        let before = encoder.n_by_reference();
        for text in &whole {
            same(encoder, text);
        }
        assert_eq!(encoder.n_by_reference() - before, 5);
    }
    // Texts of 64 KiB would make the fast engine start threads of its own in addition to the pool.
    for thread in std::fs::read_dir("/proc/self/task").into_iter().flatten() {
        let name = std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap_or_default();
        assert!(!name.starts_with("fastokens"), "{name}");
    }
}

#[test]
fn nfc_is_composed_as_in_the_reference() {
    let mut json = of_family(Family::Qwen2);
    json["normalizer"] = json!({ "type": "NFC" });
    let encoder = encoder(&json);
    assert_eq!(encoder.verdict().reason, None);
    let decomposed = "re\u{301}sume\u{301} \u{1100}\u{1161}\u{11a8} a\u{323}\u{302}\u{7fd} ";
    same(&encoder, decomposed);
    same(&encoder, &decomposed.repeat(3_000));
}

fn check_refused(json: &Value, piece: &str) {
    let encoder = encoder(json);
    let reason = encoder.verdict().reason.clone().unwrap_or_default();
    assert_eq!(encoder.verdict().engine, REFERENCE, "{piece}");
    assert!(reason.starts_with(piece), "expected {piece}, found {reason}");
    // And it still encodes.
    assert!(!encoder.encode("It's 12 words.").unwrap().is_empty());
}

#[test]
fn other_splits_go_to_the_reference() {
    let byte_level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    let split = |regex: &str, behavior: &str, invert: bool| json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": behavior, "invert": invert });
    let cl100k = of_family(Family::Cl100k)["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"].clone();
    let cl100k = cl100k.as_str().unwrap();
    let check = |steps: Value, piece: &str| {
        let mut json = of_family(Family::Gpt2);
        json["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": steps });
        check_refused(&json, piece);
    };
    let sequence = |first: Value| json!([first, byte_level]);
    check(
        sequence(split(r"\w+|[^\w\s]+|\s+", "Isolated", false)),
        "pre_tokenizer has other regular expressions",
    );
    check(sequence(split(r"(?<=a)b|.", "Isolated", false)), "pre_tokenizer has other regular expressions");
    let two_digits = cl100k.replace("{1,3}", "{1,2}");
    check(sequence(split(&two_digits, "Isolated", false)), "pre_tokenizer has other regular expressions");
    let possessive = cl100k.replace(r"[^\r\n\p{L}\p{N}]?", r"[^\r\n\p{L}\p{N}]?+");
    check(sequence(split(&possessive, "Isolated", false)), "pre_tokenizer has other regular expressions");
    check(sequence(split(cl100k, "MergedWithPrevious", false)), "pre_tokenizer.pretokenizers[0].behavior");
    check(
        json!([{ "type": "Digits", "individual_digits": true }, byte_level]),
        "pre_tokenizer.pretokenizers[0].",
    );
    let falcon = json!([{ "type": "Punctuation", "behavior": "Contiguous" }, byte_level]);
    check(falcon, "pre_tokenizer.pretokenizers[0].");
    // Removing what lies between the matches leaves the same words.
    let mut json = of_family(Family::Cl100k);
    json["pre_tokenizer"]["pretokenizers"][0] = split(cl100k, "Removed", true);
    assert_eq!(encoder(&json).verdict().reason, None);

    let mut json = of_family(Family::Gpt2);
    json["pre_tokenizer"]["add_prefix_space"] = json!(true);
    check_refused(&json, "pre_tokenizer.add_prefix_space is true, expected false");
    json["pre_tokenizer"] = json!({ "type": "WhitespaceSplit" });
    check_refused(&json, "pre_tokenizer.type is \"WhitespaceSplit\"");
}

#[test]
fn other_normalizers_models_and_added_tokens_go_to_the_reference() {
    let check = |change: &dyn Fn(&mut Value), piece: &str| {
        let mut json = of_family(Family::Gpt2);
        change(&mut json);
        check_refused(&json, piece);
    };
    let sequence = |steps: Value| json!({ "type": "Sequence", "normalizers": steps });
    check(
        &|json| json["normalizer"] = sequence(json!([{ "type": "NFKC" }, { "type": "Lowercase" }])),
        "normalizer.normalizers[0].type is \"NFKC\"",
    );
    let stripped = json!([{ "type": "NFC" }, { "type": "StripAccents" }]);
    check(&|json| json["normalizer"] = sequence(stripped.clone()), "normalizer.normalizers[1].type");
    check(
        &|json| json["model"]["byte_fallback"] = json!(true),
        "model.byte_fallback is true, expected absent",
    );
    check(&|json| json["model"]["unk_token"] = json!(EOD), "model.unk_token");
    check(&|json| json["model"]["dropout"] = json!(0.0), "model.dropout is 0.0");
    for flag in ["single_word", "lstrip", "rstrip"] {
        let token = json!({
            "id": 900, "content": "zebra", "single_word": flag == "single_word", "lstrip": flag == "lstrip",
            "rstrip": flag == "rstrip", "normalized": false, "special": false
        });
        check(
            &|json| json["added_tokens"].as_array_mut().unwrap().push(token.clone()),
            &format!("added_tokens (`zebra`, id 900) is {flag}"),
        );
    }
    let mut json = of_family(Family::Gpt2);
    json["model"]["vocab"].as_object_mut().unwrap().remove("Ġ");
    let refusal = family::recognize(&json).unwrap_err();
    assert_eq!(refusal.piece, "model.vocab");
}

#[test]
fn added_tokens_that_are_not_special_are_found_as_in_the_reference() {
    let mut json = of_family(Family::Gpt2);
    for (id, content, normalized) in
        [(900, "  ", true), (901, "   ", true), (902, "<think>", false), (903, "<think>x", true)]
    {
        json["added_tokens"].as_array_mut().unwrap().push(json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": normalized, "special": false
        }));
    }
    let encoder = encoder(&json);
    assert_eq!(encoder.verdict().reason, None);
    for text in
        ["a     b", "<think>x  <think><|tool|>   y", "<thin<think>k>", &" <think>word   and".repeat(5_000)]
    {
        same(&encoder, text);
        assert!(encoder.encode(text).unwrap().iter().any(|id| *id >= 900), "{text}");
    }
}

#[test]
fn boundaries_never_come_from_text() {
    let json = of_family(Family::Cl100k);
    let text = "a<|endoftext|>b<|tool|>c <|endof<|endoftext|>text|>";
    let as_text = encoder(&json);
    assert!(as_text.encode(text).unwrap().iter().all(|id| *id > 1));

    let options = EncoderOptions { special_in_text: SpecialInText::Match, ..EncoderOptions::default() };
    let matching = load(&json, &options).unwrap();
    assert_eq!(matching.verdict().reason, None);
    let ids = matching.encode(text).unwrap();
    assert_eq!(ids.iter().filter(|id| **id == 1).count(), 1);
    assert!(!ids.contains(&0));
    same(&matching, text);

    let options = EncoderOptions { bos: Some(TOOL.to_owned()), ..options };
    let with_bos = load(&json, &options).unwrap();
    assert_eq!(with_bos.bos(), Some(TokenId(1)));
    assert!(with_bos.encode(text).unwrap().iter().all(|id| *id > 1));
    same(&with_bos, text);
    let unknown = EncoderOptions { bos: Some("<s>".to_owned()), ..EncoderOptions::default() };
    let error = load(&json, &unknown).err().unwrap().to_string();
    assert!(error.contains("`tokenizer.bos` names `<s>`, but the file's special tokens are"), "{error}");
}

#[test]
fn a_wrong_id_is_noticed_and_named() {
    let encoder = &ENCODERS[0];
    let mut ids = encoder.encode("some words here").unwrap();
    ids[1] = 17;
    let said = encoder.difference("some words here", &ids).unwrap().unwrap();
    assert!(said.starts_with("token 1 of \"some words here\" is id 17, in the reference id "), "{said}");
    ids.truncate(1);
    assert!(encoder.difference("some words here", &ids).unwrap().unwrap().contains("is the end"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_the_same(
        text in prop_oneof![".{0,80}", "[a-z' 0-9\n\t.,\u{3000}漢é\u{301}]{0,120}", "(  |\n|\r\n|it's|'LL|12345|<\\|tool\\|>|…){0,40}"],
    ) {
        for encoder in &*ENCODERS {
            let mut ids = Vec::new();
            encoder.encode_unchecked(&text, &mut ids, encoder.fast.as_ref()).unwrap();
            prop_assert_eq!(encoder.difference(&text, &ids).unwrap(), None);
        }
    }

    #[test]
    fn cuts_change_no_id(text in "([a-z]{1,6}|漢字|。|, |\\. | |\n|/|7|\u{301}){1,60}", limit in 2usize..40) {
        for encoder in &*ENCODERS {
            let Some((part, rest)) = cut::part(&text, limit) else { continue };
            let mut ids = encoder.encode(part).unwrap();
            ids.extend(encoder.encode(rest).unwrap());
            prop_assert_eq!(encoder.difference(&text, &ids).unwrap(), None);
        }
    }
}
