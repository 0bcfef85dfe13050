//! Every kind of attention, by a list: a new kind needs one line here, and an oracle that is as naive as its
//! formula.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use moe_train::config::{RunConfig, Values};
use moe_train::model::attention::{Attention, Place};
use moe_train::model::config::{AttentionConfig, AttentionPattern, ModelConfig};
use moe_train::model::context::{BatchCounts, Context, Pass};
use moe_train::model::init::Init;
use moe_train::model::memory::MemoryPlan;
use moe_train::model::parameters::{Parameter, parameters};
use moe_train::model::rope::{Ropes, Stretch};
use moe_train::model::size::size;
use moe_train::model::{Input, Model, PADDING};
use moe_train::ops::{Form, plainly};

use crate::oracles::oracle;
use crate::support::*;

pub const PLACE: Place = Place::new(12, 1e-5, 1.0);

/// Settings of all kinds, covering every key.
pub const KINDS: &[&[&str]] = &[
    &[],
    &["attention.kv_heads=1", "attention.head_dim=6"],
    &["attention.qk_norm=true", "attention.head_dim=4", "attention.rotary_fraction=0.5"],
    &["attention.gate=head", "attention.rotary=none", "attention.head_dim=3"],
    &["attention.gate=channel", "attention.sinks=true"],
    &["attention.softcap=0.2"],
    &["attention.kind=swa", "attention.swa.window=1"],
    &["attention.kind=swa", "attention.swa.window=3", "attention.rotary=window"],
    &["attention.kind=swa", "attention.swa.window=4", "attention.sinks=true", "attention.qk_norm=true"],
    &["attention.kind=swa", "attention.swa.window=9", "attention.gate=head"],
    &[
        "attention.kind=mla",
        "attention.mla.heads=2",
        "attention.mla.kv_rank=5",
        "attention.mla.nope_dim=3",
        "attention.mla.rope_dim=2",
        "attention.mla.value_dim=5",
    ],
    &[
        "attention.kind=mla",
        "attention.mla.heads=3",
        "attention.mla.kv_rank=4",
        "attention.mla.q_rank=6",
        "attention.mla.nope_dim=4",
        "attention.mla.rope_dim=0",
        "attention.mla.value_dim=3",
    ],
    &[
        "attention.kind=mla",
        "attention.mla.heads=2",
        "attention.mla.kv_rank=4",
        "attention.mla.q_rank=6",
        "attention.mla.nope_dim=0",
        "attention.mla.rope_dim=4",
        "attention.mla.value_dim=2",
    ],
    &["attention.kind=kda", "attention.kda.heads=2", "attention.kda.key_dim=3", "attention.kda.value_dim=5"],
    &[
        "attention.kind=kda",
        "attention.kda.heads=3",
        "attention.kda.key_dim=4",
        "attention.kda.value_dim=2",
        "attention.kda.conv=2",
        "attention.kda.decay=head",
    ],
    &[
        "attention.kind=nsa",
        "attention.nsa.heads=4",
        "attention.nsa.kv_heads=2",
        "attention.nsa.head_dim=4",
        "attention.nsa.block=3",
        "attention.nsa.selected=3",
        "attention.nsa.window=4",
    ],
    &[
        "attention.kind=nsa",
        "attention.nsa.heads=3",
        "attention.nsa.head_dim=2",
        "attention.nsa.block=4",
        "attention.nsa.selected=1",
        "attention.nsa.window=40",
    ],
];

/// The attention of these assignments, with six heads unless given.
pub fn kind(assignments: &[&str]) -> AttentionConfig {
    let (mut values, mut problems) = (Values::default(), Vec::new());
    let all = ["model.d_model=12", "attention.heads=6"].iter().chain(assignments);
    all.filter(|assignment| has_shared_heads(assignments) || !assignment.starts_with("attention.heads"))
        .for_each(|assignment| values.read_assignment(assignment, &mut problems));
    let config = RunConfig::new(values, problems).unwrap_or_else(|error| panic!("{assignments:?}: {error}"));
    config.model(VOCAB, SEQ).attention(0).clone()
}

/// Two samples of 37 tokens: documents of 5, 1 and 31 tokens; of 1 and 33 tokens, and padding.
const LENGTHS: [&[usize]; 2] = [&[5, 1, 31], &[1, 33]];
const TOKENS: usize = 37;

fn layout() -> (Vec<u32>, Vec<u32>) {
    let (mut segments, mut positions) = (Vec::new(), Vec::new());
    for documents in LENGTHS {
        for (number, &len) in documents.iter().enumerate() {
            segments.extend(vec![number as u32; len]);
            positions.extend(0..len as u32);
        }
        let rest = TOKENS - documents.iter().sum::<usize>();
        segments.extend(vec![PADDING; rest]);
        positions.extend(vec![0; rest]);
    }
    (segments, positions)
}

pub fn context(config: &AttentionConfig, segments: &[u32], positions: &[u32], batch: usize) -> Context {
    stretched_context(config, segments, positions, batch, None)
}

pub fn stretched_context(
    config: &AttentionConfig,
    segments: &[u32],
    positions: &[u32],
    batch: usize,
    stretch: Option<Stretch>,
) -> Context {
    let (n, device) = (segments.len(), autodiff());
    let input = Input::new(&vec![0; n], positions, segments, [batch, n / batch], &device);
    let ropes = Ropes::new(n, config.rotary(PLACE.d_model), stretch);
    Context::new(&input, Pass::EVAL, BatchCounts::of(&input.valid), &ropes)
}

/// The position of a traversal; the variants of an enum are not part of a name.
#[derive(Default)]
struct Path(Vec<Option<String>>);

impl Path {
    fn enter(&mut self, name: &str, container: &str) {
        self.0.push((!container.starts_with("Enum:")).then(|| name.to_string()));
    }

    fn name(&self) -> String {
        self.0.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(".")
    }
}

/// Gives each parameter the values of a function of its name and size.
struct Give<F: FnMut(&str, usize) -> Vec<f32>>(Path, F);

impl<F: FnMut(&str, usize) -> Vec<f32>> ModuleMapper for Give<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.0.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.0.0.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, old) = (param.id, param.val());
        let values = (self.1)(&self.0.name(), old.shape().num_elements());
        Param::initialized(id, tensor(&values, old.dims(), &old.device()).require_grad())
    }
}

/// The attention of a block with parameters made by a function of their name and size.
pub fn layer(config: &AttentionConfig, place: Place, give: impl FnMut(&str, usize) -> Vec<f32>) -> Attention {
    let device = autodiff();
    config.build(place, "layer", &Init::new(1, 1.0, &device)).map(&mut Give(Path::default(), give))
}

/// Values for which every part of an attention has an effect.
fn some(name: &str, n: usize) -> Vec<f32> {
    let seed = name.bytes().map(u64::from).sum();
    let offset = if name.contains("norm") { 1.0 } else { 0.0 };
    noise(seed, n).into_iter().map(|value| 0.6 * value + offset).collect()
}

/// Parameters as matrices, and their gradients, by name.
struct Collect<'a>(Path, Option<&'a Gradients>, Named);
pub type Named = BTreeMap<String, Tensor<2>>;

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.0.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.0.0.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (value, name) = (param.val(), self.0.name());
        let columns = *value.dims().last().expect("no scalars");
        let rows = value.shape().num_elements() / columns;
        let value = match self.1 {
            None => value,
            Some(gradients) => value.grad(gradients).unwrap_or_else(|| panic!("{name} has no gradient")),
        };
        self.2.insert(name, value.reshape([rows, columns]));
    }
}

pub fn weights(layer: &Attention) -> Named {
    let mut collect = Collect(Path::default(), None, Named::new());
    layer.visit(&mut collect);
    collect.2
}

pub fn gradients(layer: &Attention, gradients: &Gradients) -> Named {
    let mut collect = Collect(Path::default(), Some(gradients), Named::new());
    layer.visit(&mut collect);
    collect.2
}

/// Rows at which documents begin, and their lengths; padding counts as one.
fn documents() -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (sample, documents) in LENGTHS.iter().enumerate() {
        let mut at = sample * TOKENS;
        for &len in *documents {
            found.push((at, len));
            at += len;
        }
    }
    found
}

fn x(seed: u64) -> Tensor<2> {
    tensor(&noise(seed, 2 * TOKENS * PLACE.d_model), [2 * TOKENS, PLACE.d_model], &autodiff()).require_grad()
}

/// 0 at padding, so that it is in no gradient.
fn direction() -> Tensor<2> {
    let (segments, _) = layout();
    let real = |i: usize| segments[i / PLACE.d_model] != PADDING;
    let values = noise(9, 2 * TOKENS * PLACE.d_model);
    let values: Vec<f32> =
        values.into_iter().enumerate().map(|(i, value)| if real(i) { value } else { 0.0 }).collect();
    tensor(&values, [2 * TOKENS, PLACE.d_model], &autodiff())
}

/// Each kind as it is, tile by tile, and by plain forms.
fn for_each(check: impl Fn(&str, AttentionConfig, Place)) {
    let tiled = Place { tile_from: 1, ..PLACE };
    for assignments in KINDS {
        let name = format!("{assignments:?}");
        check(&name, kind(assignments), PLACE);
        check(&format!("{name}, in tiles"), kind(assignments), tiled);
        plainly(|| check(&format!("{name}, plainly"), kind(assignments), PLACE));
    }
}

#[test]
fn every_kind_equals_its_naive_oracle_forward_and_backward() {
    let (segments, positions) = layout();
    for_each(|name, config, place| {
        let layer = layer(&config, place, some);
        let ctx = context(&config, &segments, &positions, 2);
        let (x1, x2) = (x(1), x(1));
        let y = layer.forward(x1.clone(), &ctx);
        let grads = (y.clone() * direction()).sum().backward();
        let (w, oracle) = (weights(&layer), oracle(&config));
        let mut total = Tensor::<1>::zeros([1], &autodiff());
        for (at, len) in documents() {
            let expected = oracle(&w, x2.clone().narrow(0, at, len));
            let found = host(y.clone().narrow(0, at, len));
            let far = distance(&found, &host(expected.clone()));
            assert!(far < 1e-5, "{name}: {far} in the document at {at}");
            total = total + (expected * direction().narrow(0, at, len)).sum();
        }
        let wanted = total.backward();
        let same = |what: &str, found: Vec<f32>, wanted: Vec<f32>| {
            assert!(
                wanted.iter().any(|g| g.abs() > 1e-3),
                "{name}: a gradient of zero proves nothing: {what}"
            );
            let far = distance(&found, &wanted);
            assert!(far < 1e-4, "{name}: gradient of {what} is off by {far}");
        };
        same("the input", host(x1.grad(&grads).expect("x")), host(x2.grad(&wanted).expect("x")));
        let wanted = gradients(&layer, &wanted);
        for (what, found) in gradients(&layer, &grads) {
            same(&what, host(found), host(wanted[&what].clone()));
        }
    });
}

#[test]
fn documents_alone_are_documents_in_a_pack() {
    let (segments, positions) = layout();
    for_each(|name, config, place| {
        let layer = layer(&config, place, some);
        let pack = x(2);
        let y = layer.forward(pack.clone(), &context(&config, &segments, &positions, 2));
        let grad = host(pack.grad(&(y.clone() * direction()).sum().backward()).expect("x"));
        let d = PLACE.d_model;
        for (at, len) in documents() {
            let alone = tensor(&host(pack.clone().narrow(0, at, len)), [len, d], &autodiff()).require_grad();
            let positions: Vec<u32> = (0..len as u32).collect();
            let z = layer.forward(alone.clone(), &context(&config, &vec![0; len], &positions, 1));
            assert!(distance(&host(y.clone().narrow(0, at, len)), &host(z.clone())) < 1e-5, "{name}: {at}");
            let own = host(alone.grad(&(z * direction().narrow(0, at, len)).sum().backward()).expect("x"));
            assert!(distance(&grad[at * d..(at + len) * d], &own) < 1e-5, "{name}: gradient at {at}");
        }
        // Without boundaries the result would be different.
        let one = context(&config, &[0; 2 * TOKENS], &positions, 2);
        let leaky = host(layer.forward(pack, &one).narrow(0, 6, 7));
        let is_alone = config.kind() == "swa" && name.contains("window=1");
        assert_eq!(distance(&leaky, &host(y.narrow(0, 6, 7))) < 1e-3, is_alone, "{name}");
    });
}

#[test]
fn no_kind_sees_later_tokens() {
    for_each(|name, config, place| {
        let layer = layer(&config, place, some);
        let positions: Vec<u32> = (0..2 * TOKENS as u32).collect();
        let ctx = context(&config, &[0; 2 * TOKENS], &positions, 1);
        let before = host(layer.forward(x(3), &ctx));
        let mut values = host(x(3));
        let at = 11 * PLACE.d_model;
        values[at..at + PLACE.d_model].iter_mut().for_each(|value| *value += 1.0);
        let after = tensor(&values, [2 * TOKENS, PLACE.d_model], &autodiff());
        let after = host(layer.forward(after, &ctx));
        assert!(distance(&before[..at], &after[..at]) < 1e-6, "{name}");
        assert!(distance(&before[at..], &after[at..]) > 1e-2, "{name}: the probe must have an effect");
    });
}

/// A model with these attentions in turn.
pub fn model_of(kinds: &[&[&str]]) -> ModelConfig {
    let in_turn = kinds.iter().map(|assignments| kind(assignments)).collect();
    ModelConfig { attention: AttentionPattern::in_turn(in_turn), n_layers: kinds.len(), ..tiny_model() }
}

#[test]
fn every_kind_says_how_many_parameters_it_has() {
    for assignments in KINDS {
        let config = model_of(&[assignments, &[]]);
        let model = Model::new(&config, 1, &Device::flex());
        let counted = parameters(&model);
        let counted = counted.iter().filter(|p| !p.name.ends_with("balance_bias")).map(Parameter::len);
        assert_eq!(size(&config).total, counted.sum::<usize>() as u64, "{assignments:?}");
    }
}

#[test]
fn blocks_of_several_kinds_are_one_model() {
    let config = model_of(KINDS);
    let model = Model::new(&config, 1, &autodiff());
    let input = batch(0, 2).input(0..2, &autodiff());
    let output = model.forward(&input, &model.eval_context(&input));
    assert!(host(output.hidden).iter().all(|value| value.is_finite()));
    // Cost and memory are sums over what each block is.
    let cost = |config: &ModelConfig| Model::cost(config).flops;
    let of = |kinds: &[&[&str]]| cost(&model_of(kinds));
    let window: &[&str] = &["attention.kind=swa", "attention.swa.window=1"];
    assert!(of(&[window, &[]]) < of(&[&[], &[]]) && of(&[window, window]) < of(&[window, &[]]));
    let scores = |kinds: &[&[&str]]| MemoryPlan::new(&model_of(kinds), 0, 1, Form::Cpu, false).scores;
    let latent: &[&str] = &["attention.kind=mla", "attention.mla.heads=3"];
    // Three heads of 12 tokens, which see 12 keys; in addition to what is kept, twice the largest. Grouped
    // queries keep none.
    assert_eq!(scores(&[latent, &[], window]), 3 * 12 * 4 * (12 + 2 * 12));
}
