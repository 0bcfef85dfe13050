//! Models of other programs: their numbers, and export and import.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use moe_train::checkpoint::{self, Loaded, Number, TensorFile, TensorHead, TensorWriter, parameter_hash};
use moe_train::config::{RunConfig, Values};
use moe_train::export::{CLASSES, Facts, Folder, SHARD_BYTES, export, gguf, verify};
use moe_train::model::Input;
use moe_train::model::parameters::{is_trained, parameters, take_gradients};
use serde_json::Value;

use crate::golden::{flat, h, read};
use crate::program::{World, json, stderr};
use crate::support::*;

/// A tokenizer of one word.
const TOKENIZER: &[u8] =
    b"{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[],\"normalizer\":null,\
    \"pre_tokenizer\":null,\"post_processor\":null,\"decoder\":null,\
    \"model\":{\"type\":\"WordLevel\",\"vocab\":{\"[EOD]\":0},\"unk_token\":\"[EOD]\"}}";

/// Byte-level BPE of five tokens.
const BPE: &[u8] = b"{\"added_tokens\":[{\"id\":0,\"content\":\"<end>\",\"special\":true}],\"pre_tokenizer\":\
    {\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"vocab\":\
    {\"<end>\":0,\"a\":1,\"b\":2,\"c\":3,\"ab\":4},\"merges\":[[\"a\",\"b\"]]}}";

/// Writes the folder that a file of reference numbers describes.
fn write_reference(golden: &Value, dir: &Path) {
    std::fs::write(dir.join("config.json"), golden["config"].to_string()).expect("write");
    let tensors = golden["tensors"].as_array().expect("tensors");
    let shape = |tensor: &Value| -> Vec<usize> {
        let sizes = tensor[1].as_array().expect("a shape").iter();
        sizes.map(|size| size.as_u64().expect("a size") as usize).collect()
    };
    let head = |tensor: &Value| TensorHead {
        name: tensor[0].as_str().expect("a name").into(),
        shape: shape(tensor),
        number: Number::F32,
    };
    let path = dir.join("model.safetensors");
    let mut file = TensorWriter::create(&path, tensors.iter().map(head).collect()).expect("create");
    for tensor in tensors {
        let n: usize = shape(tensor).iter().product();
        let number = |at: usize| tensor[at].as_f64().expect("a number");
        let seed = tensor[2].as_u64().expect("a seed");
        let values: Vec<f32> = (0..n as u64).map(|i| (h(seed, i) * number(3) + number(4)) as f32).collect();
        file.write(&values).expect("write");
    }
    file.finish().expect("finish");
}

fn open(dir: &Path) -> (Folder, RunConfig) {
    let folder = Folder::open(dir).expect("a folder");
    let config = folder.config(Values::default(), Vec::new()).expect("a model of ours");
    (folder, config)
}

/// The numbers of transformers: logits, loss, and for each gradient its norm and its product with a fixed
/// vector.
fn is_that_of_transformers(text: &str) {
    let golden = read(text);
    let dir = tempfile::tempdir().expect("dir");
    write_reference(&golden, dir.path());
    let (mut folder, config) = open(dir.path());
    let geometry = config.model(folder.vocab_size, 10);
    let model = folder.model(&config.values, &geometry, &autodiff()).expect("the model");
    let ids: Vec<u32> = flat(&golden["input_ids"]).iter().map(|&id| id as u32).collect();
    let positions: Vec<u32> = (0..20).map(|i| i % 10).collect();
    let input = Input::new(&ids, &positions, &[0; 20], [2, 10], &autodiff());
    let hidden = model.forward(&input, &model.eval_context(&input)).hidden;
    let logits: Tensor<2> = hidden.matmul(model.head());
    let far = distance(&host(logits.clone()), &flat(&golden["logits"]));
    assert!(far < 1e-4, "{}: logits differ by {far}", folder.class.architecture);

    let log_p = burn::tensor::activation::log_softmax(logits, 1);
    let chosen: Vec<f32> = (0..20 * 40)
        .map(|i| f32::from(u8::from(i / 40 % 10 < 9 && ids[(i / 40 + 1) % 20] as usize == i % 40)))
        .collect();
    let loss = (log_p * tensor(&chosen, [20, 40], &autodiff())).sum() * (-1.0 / 18.0);
    let expected = golden["loss"].as_f64().expect("a loss") as f32;
    assert!((host(loss.clone())[0] - expected).abs() < 1e-5, "{}", folder.class.architecture);

    let mut gradients = loss.backward();
    let trained = parameters(&model).into_iter().filter(|p| is_trained(&p.name));
    let taken = take_gradients(&model, &mut gradients);
    let ours: Vec<_> = trained.zip(taken).map(|(p, gradient)| (p, gradient.map(host))).collect();
    let mapped = folder.class.tensors(Facts { values: &config.values, model: &geometry });
    let mut names: Vec<&str> = mapped.iter().map(|part| part.theirs.as_str()).collect();
    names.sort_unstable();
    let mut n_compared = 0;
    for expected in golden["gradients"].as_array().expect("gradients") {
        let name = expected[0].as_str().expect("a name");
        // Their fused experts have no single counterpart.
        let Some(part) = mapped.iter().find(|part| part.theirs == name) else { continue };
        let Some((p, Some(gradient))) = ours.iter().find(|(p, _)| p.name == part.ours) else { continue };
        let gradient = part.gather(gradient, &p.shape);
        let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
        let number = |at: usize| expected[at].as_f64().expect("a number") as f32;
        assert!((norm - number(1)).abs() < 1e-4 * number(1).max(1.0), "{name}: {norm} {expected}");
        n_compared += 1;
    }
    assert!(n_compared > 10, "{n_compared} gradients");
}

#[test]
fn weights_of_glm4_moe_are_the_same_model() {
    is_that_of_transformers(include_str!("../data/golden/model_glm4_moe.json"));
}

#[test]
fn weights_of_qwen3_moe_are_the_same_model() {
    is_that_of_transformers(include_str!("../data/golden/model_qwen3_moe.json"));
}

#[test]
fn weights_of_mixtral_are_the_same_model() {
    is_that_of_transformers(include_str!("../data/golden/model_mixtral.json"));
}

#[test]
fn weights_of_deepseek_v3_are_the_same_model() {
    is_that_of_transformers(include_str!("../data/golden/model_deepseek_v3.json"));
}

/// A checkpoint after some steps of a run with these keys.
fn trained(dir: &Path, assignments: &[&str]) -> Loaded {
    let config = run_config(assignments);
    let summary = train(dir, &config, None, Some(2));
    let loaded = checkpoint::load(&summary.checkpoint).expect("whole");
    Loaded { tokenizer: TOKENIZER.to_vec(), ..loaded }
}

const SOFTMAX: [&str; 2] = ["moe.router.score=softmax", "moe.balance.bias_rate=0"];

#[test]
fn a_model_of_every_class_comes_back_bit_for_bit() {
    let with = |more: &[&'static str]| [&SOFTMAX[..], more].concat();
    let mla = [
        "attention.kind=mla",
        "attention.mla.heads=2",
        "attention.mla.rope_dim=4",
        "attention.mla.nope_dim=3",
    ];
    let yarn = ["attention.rope.scaling=yarn", "attention.rope.factor=4", "attention.rope.original=8"];
    let glm =
        ["attention.qk_norm=true", "attention.head_dim=8", "attention.rotary_fraction=0.5", "moe.shared=2"];
    let groups = ["moe.router.kind=group_limited", "moe.experts=6", "moe.router.group_limited.groups=3"];
    let window = ["attention.kind=swa", "attention.swa.window=5"];
    let all: [(&str, Vec<&str>); 10] = [
        ("Glm4MoeForCausalLM", [&glm[..], &yarn].concat()),
        ("Glm4MoeForCausalLM", groups.to_vec()),
        (
            "DeepseekV3ForCausalLM",
            [&mla[..], &["attention.mla.q_rank=5", "model.tie_embeddings=false"]].concat(),
        ),
        ("Qwen3MoeForCausalLM", with(&["attention.qk_norm=true", "moe.shared=0"])),
        ("Qwen2MoeForCausalLM", with(&["moe.shared_gate=true", "moe.router.norm_weights=false"])),
        ("MixtralForCausalLM", with(&["moe.shared=0", "model.dense_layers=0"])),
        ("MixtralForCausalLM", with(&[&window[..], &["moe.shared=0", "model.dense_layers=0"]].concat())),
        ("Qwen3ForCausalLM", vec!["attention.qk_norm=true", "model.dense_layers=2"]),
        ("LlamaForCausalLM", vec!["model.dense_layers=2"]),
        ("MistralForCausalLM", [&window[..], &["model.dense_layers=2"]].concat()),
    ];
    let mut seen: Vec<&str> = all.iter().map(|(class, _)| *class).collect();
    seen.dedup();
    assert_eq!(seen.len(), CLASSES.len(), "a class has no case here");
    for (class, assignments) in all {
        let dir = tempfile::tempdir().expect("dir");
        let loaded = trained(&dir.path().join("run"), &assignments);
        let to = dir.path().join("hf");
        // Small files, so that there are several.
        let exported = export(&loaded, &to, Number::F32, 2000).expect("exported");
        assert_eq!(exported.class.architecture, class);
        assert!(exported.n_files > 1 && to.join("model.safetensors.index.json").is_file());
        let (mut folder, config) = open(&to);
        let geometry = config.model(folder.vocab_size, folder.max_positions);
        let model = folder.model(&config.values, &geometry, &Device::flex()).expect("the model");
        assert_eq!(parameter_hash(&parameters(&model)), loaded.state.parameter_hash, "{class}");
        let difference = verify(&loaded, &to).expect("verified");
        assert!(difference.max == 0.0 && difference.same == difference.n, "{class}: {difference:?}");
    }
}

#[test]
fn narrow_numbers_leave_routers_as_they_are_and_factors_go_into_experts() {
    let dir = tempfile::tempdir().expect("dir");
    let loaded = trained(&dir.path().join("run"), &[]);
    let to = dir.path().join("bf16");
    export(&loaded, &to, Number::Bf16, SHARD_BYTES).expect("exported");
    let (mut folder, config) = open(&to);
    let geometry = config.model(folder.vocab_size, folder.max_positions);
    let model = folder.model(&config.values, &geometry, &Device::flex()).expect("the model");
    let original = checkpoint::load_model(&loaded, &Device::flex()).expect("a model");
    for (new, old) in parameters(&model).iter().zip(parameters(&original)) {
        let far = distance(&new.to_host(), &old.to_host());
        let is_kept = new.name.contains("router");
        assert!(if is_kept { far == 0.0 } else { far <= 0.01 }, "{}: {far}", new.name);
        assert!(is_kept || new.shape.len() < 2 || far > 0.0, "{} is not narrower", new.name);
    }
    // A class without a factor of weights.
    let scaled =
        [&SOFTMAX[..], &["moe.shared=0", "attention.qk_norm=true", "moe.router.route_scale=1.5"]].concat();
    let loaded = trained(&dir.path().join("scaled"), &scaled);
    let to = dir.path().join("folded");
    export(&loaded, &to, Number::F32, SHARD_BYTES).expect("exported");
    assert!(open(&to).1.values.to_toml(false).contains("route_scale = 1.0"));
    let difference = verify(&loaded, &to).expect("verified");
    assert!(difference.max < 1e-5, "{difference:?}");
}

#[test]
fn a_nonzero_bias_that_a_class_does_not_support_is_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let keys = ["moe.router.score=softmax", "moe.shared=0", "attention.qk_norm=true"];
    let loaded = trained(&dir.path().join("run"), &keys);
    let to = dir.path().join("hf");
    let problem = export(&loaded, &to, Number::F32, SHARD_BYTES).expect_err("refused").to_string();
    assert!(
        problem.contains("balance_bias, which is not zero") && problem.contains("bias_rate = 0"),
        "{problem}"
    );
    assert!(!to.exists());
}

#[test]
fn folders_that_cannot_be_imported_are_refused_with_the_reason() {
    let golden = read(include_str!("../data/golden/model_glm4_moe.json"));
    let problem = |name: &str, value: Value| {
        let dir = tempfile::tempdir().expect("dir");
        let mut golden = golden.clone();
        golden["config"][name] = value;
        write_reference(&golden, dir.path());
        let folder = Folder::open(dir.path());
        let opened = folder.and_then(|mut folder| {
            let config = folder.config(Values::default(), Vec::new())?;
            let geometry = config.model(folder.vocab_size, 10);
            folder.model(&config.values, &geometry, &Device::flex())
        });
        opened.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(problem("hidden_act", "silu".into()), "");
    assert!(problem("hidden_act", "gelu".into()).contains("hidden_act: expected \"silu\", found \"gelu\""));
    assert!(problem("architectures", serde_json::json!(["Bert"])).contains("found Bert"));
    let rope = |kind: &str, fast: f64| {
        serde_json::json!({ "rope_type": kind, "rope_theta": 1e4, "factor": 2.0, "beta_fast": fast,
            "partial_rotary_factor": 1.0, "original_max_position_embeddings": 8 })
    };
    assert_eq!(problem("rope_parameters", rope("yarn", 32.0)), "");
    assert!(problem("rope_parameters", rope("yarn", 16.0)).contains("beta_fast: expected 32, found 16"));
    assert!(
        problem("rope_parameters", rope("linear", 32.0)).contains("expected default or yarn, found linear")
    );
    assert!(problem("hidden_size", 30.into()).contains("model.embed_tokens.weight: expected shape [40, 30]"));
    assert!(problem("n_shared_experts", 0.into()).contains("shared_experts.down_proj.weight is not part"));
    assert!(problem("num_hidden_layers", 3.into()).contains("tensor model.layers.2"));
    // Extra blocks that predict later tokens are left out.
    assert_eq!(problem("num_nextn_predict_layers", 5.into()), "");
}

#[test]
fn a_run_is_exported_imported_and_trained_further() {
    let world = World::new();
    let trained = json(&world.train("runs/a", &[]));
    let exported = world.run(&["export", "runs/a", "--to", "hf", "hf", "--verify"]);
    assert!(exported.status.success(), "{}", stderr(&exported));
    let said = String::from_utf8_lossy(&exported.stdout).into_owned();
    assert!(said.contains("Glm4MoeForCausalLM") && said.contains("at most 0.0e0"), "{said}");
    let card = std::fs::read_to_string(world.path("hf/README.md")).expect("a card");
    assert!(card.contains(trained["parameter_hash"].as_str().expect("a hash")));
    let again = world.run(&["export", "runs/a", "--to", "hf", "hf"]);
    assert!(again.status.code() == Some(2) && stderr(&again).contains("is not empty"), "{}", stderr(&again));
    let unknown = world.run(&["export", "runs/a", "--to", "onnx", "x"]);
    assert!(unknown.status.code() == Some(2) && stderr(&unknown).contains("--to onnx: hf"));

    let scored = world.run(&["eval", "runs/a", "--shards", "out", "--per-token", "scores.npy", "--json"]);
    let all = &json(&scored)["all"];
    let bytes = std::fs::read(world.path("scores.npy")).expect("scores");
    let head = 10 + usize::from(bytes[8]) + 256 * usize::from(bytes[9]);
    let records: Vec<&[u8]> = bytes[head..].chunks_exact(28).collect();
    assert_eq!(Some(records.len() as u64), all["targets"].as_u64());
    let mean = |at: usize, of: fn([u8; 4]) -> f32| {
        let sum: f32 = records.iter().map(|r| of([r[at], r[at + 1], r[at + 2], r[at + 3]])).sum();
        f64::from(sum) / records.len() as f64
    };
    let (loss, rank) = (mean(24, f32::from_le_bytes), mean(20, |b| u32::from_le_bytes(b) as f32));
    assert!(
        (loss - all["ce"].as_f64().expect("a loss")).abs() < 1e-4 && rank > 0.1 && rank < 4.0,
        "{loss} {rank}"
    );

    let scored = json(&world.run(&[
        "eval",
        "runs/a",
        "--shards",
        "out",
        "--samples",
        "2",
        "--logits",
        "logits",
        "--json",
    ]));
    let mut file = TensorFile::open(&world.path("logits")).expect("logits");
    let read = |file: &mut TensorFile, name: &str| file.read(name).expect("a tensor");
    let (tokens, segments) = (read(&mut file, "tokens"), read(&mut file, "segments"));
    let (mut sum, mut n) = (0.0, 0);
    for (at, logits) in read(&mut file, "logits").chunks(9).enumerate() {
        if at % 32 < 31 && segments[at] >= 0.0 && segments[at] == segments[at + 1] {
            let total: f32 = logits.iter().map(|x| x.exp()).sum();
            sum += f64::from(total.ln() - logits[tokens[at + 1] as usize]);
            n += 1;
        }
    }
    assert_eq!((2 * 32, Some(n)), (tokens.len(), scored["all"]["targets"].as_u64()));
    assert!((sum / n as f64 - scored["all"]["ce"].as_f64().expect("a loss")).abs() < 1e-4, "{sum} {n}");

    let from = ["import", "--from", "hf", "hf", "--shards", "out", "--config", "small.toml", "--json"];
    let imported = json(&world.run(&from));
    assert_eq!((&imported["step"], imported["run"].as_str()), (&0.into(), Some("runs/hf")));
    assert_eq!(imported["parameter_hash"], trained["parameter_hash"]);
    let resumed = json(&world.run(&["resume", "runs/hf", "--steps", "12", "--json"]));
    assert_eq!(resumed["step"], 12);
    let loss = |of: &Value| of["validation_ce"].as_f64().expect("a loss");
    assert!(loss(&resumed) < loss(&trained) + 0.1, "{resumed} {trained}");

    let path = world.path("hf/tokenizer.json");
    let tokenizer = std::fs::read_to_string(&path).expect("a tokenizer");
    std::fs::write(&path, tokenizer.replace("\"a\":1", "\"z\":1")).expect("write");
    let other = world.run(&[&from[..], &["--run", "runs/b"]].concat());
    assert!(
        other.status.code() == Some(3) && stderr(&other).contains("model.vocab differs"),
        "{}",
        stderr(&other)
    );
    assert!(!world.path("runs/b").exists());
}

/// The header of a GGUF file: keys, and for each tensor its sizes, type and first byte.
struct Gguf {
    keys: Vec<String>,
    tensors: BTreeMap<String, (Vec<u64>, u32, usize)>,
    bytes: Vec<u8>,
}

impl Gguf {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("read");
        let mut at = 4;
        let take = |at: &mut usize, n: usize| {
            *at += n;
            bytes[*at - n..*at].to_vec()
        };
        let number = |at: &mut usize, n: usize| {
            let mut all = [0; 8];
            all[..n].copy_from_slice(&take(at, n));
            u64::from_le_bytes(all)
        };
        let text = |at: &mut usize| {
            let n = number(at, 8) as usize;
            String::from_utf8(take(at, n)).expect("UTF-8")
        };
        assert_eq!((&bytes[..4], number(&mut at, 4)), (&b"GGUF"[..], 3));
        let (n_tensors, n_keys) = (number(&mut at, 8), number(&mut at, 8));
        let size = |kind: u64| match kind {
            7 => 1,
            _ => 4,
        };
        let mut keys = Vec::new();
        for _ in 0..n_keys {
            let key = text(&mut at);
            let value = match number(&mut at, 4) {
                8 => text(&mut at),
                9 => {
                    let (of, n) = (number(&mut at, 4), number(&mut at, 8));
                    let one = |_| if of == 8 { text(&mut at) } else { number(&mut at, size(of)).to_string() };
                    (0..n).map(one).collect::<Vec<_>>().join(",")
                }
                6 => f32::from_bits(number(&mut at, 4) as u32).to_string(),
                kind => number(&mut at, size(kind)).to_string(),
            };
            keys.push(format!("{key} = {value}"));
        }
        let heads: Vec<_> = (0..n_tensors)
            .map(|_| {
                let name = text(&mut at);
                let n = number(&mut at, 4);
                let sizes = (0..n).map(|_| number(&mut at, 8)).collect();
                (name, sizes, number(&mut at, 4) as u32, number(&mut at, 8) as usize)
            })
            .collect();
        let start = at.next_multiple_of(32);
        let tensors =
            heads.into_iter().map(|(name, sizes, kind, from)| (name, (sizes, kind, start + from))).collect();
        Self { keys, tensors, bytes }
    }

    fn values(&self, name: &str) -> Vec<f32> {
        let (sizes, kind, from) = &self.tensors[name];
        assert_eq!(*kind, 0, "{name} is f32");
        let n = sizes.iter().product::<u64>() as usize;
        let bytes = self.bytes[*from..*from + 4 * n].chunks_exact(4);
        bytes.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }
}

#[test]
fn a_gguf_file_has_the_tensors_and_keys_of_its_architecture() {
    let dir = tempfile::tempdir().expect("dir");
    let loaded = Loaded { tokenizer: BPE.to_vec(), ..trained(&dir.path().join("run"), &["moe.shared=2"]) };
    let path = dir.path().join("m.gguf");
    gguf::export(&loaded, &path, gguf::Type::F32).expect("exported");
    let file = Gguf::read(&path);
    for key in [
        "general.architecture = glm4moe",
        "glm4moe.expert_count = 5",
        "glm4moe.expert_shared_count = 2",
        "glm4moe.expert_gating_func = 2",
        "glm4moe.attention.head_count_kv = 1",
        "glm4moe.rope.freq_base = 10000",
        "tokenizer.ggml.pre = gpt-2",
        "tokenizer.ggml.merges = a b",
        "tokenizer.ggml.add_bos_token = 0",
    ] {
        assert!(file.keys.iter().any(|found| found == key), "{key}: {:?}", file.keys);
    }
    let tokens = file.keys.iter().find(|key| key.starts_with("tokenizer.ggml.tokens")).expect("tokens");
    assert!(tokens.starts_with("tokenizer.ggml.tokens = <end>,a,b,c,ab,[PAD5],"), "{tokens}");
    // Theirs are [experts, out, in], the last counted first.
    let up = parameters(&checkpoint::load_model(&loaded, &Device::flex()).expect("a model"));
    let up = up.iter().find(|p| p.name == "blocks.1.feed_forward.experts.w_up").expect("experts").to_host();
    let (sizes, ..) = &file.tensors["blk.1.ffn_up_exps.weight"];
    assert_eq!(*sizes, [12, 7, 5]);
    let values = file.values("blk.1.ffn_up_exps.weight");
    let at = |expert: usize, out: usize, channel: usize| values[(expert * 7 + out) * 12 + channel];
    assert_eq!(at(3, 2, 5), up[(3 * 12 + 5) * 7 + 2]);
    assert!(file.values("blk.0.attn_k.bias").iter().all(|value| *value == 0.0));
    assert!(
        file.tensors.contains_key("blk.1.exp_probs_b.bias") && !file.tensors.contains_key("output.weight")
    );

    let again = gguf::export(&loaded, &path, gguf::Type::F32).expect_err("refused").to_string();
    assert!(again.contains("exists"), "{again}");
    // Rows of 12 values fill no block of 32, so that they are 16 bits wide.
    let narrow = dir.path().join("q8.gguf");
    gguf::export(&loaded, &narrow, gguf::Type::Q8_0).expect("exported");
    let narrow = Gguf::read(&narrow);
    assert_eq!(
        (narrow.tensors["token_embd.weight"].1, narrow.tensors["blk.1.ffn_gate_inp.weight"].1),
        (1, 0)
    );

    let words = Loaded { tokenizer: TOKENIZER.to_vec(), ..loaded };
    let other = dir.path().join("words.gguf");
    let refused = gguf::export(&words, &other, gguf::Type::F32).expect_err("refused").to_string();
    assert!(
        refused.contains("model.type: expected \"BPE\", found \"WordLevel\"") && !other.exists(),
        "{refused}"
    );
}
