use burn::tensor::Device;
use moe_train::checkpoint::parameter_hash;
use moe_train::model::Model;
use moe_train::model::context::Mode;
use moe_train::model::facts::table;
use moe_train::model::moe::{BalanceConfig, RouterConfig};
use moe_train::model::parameters::{parameters, replace_all};
use moe_train::train::train_step;

use crate::routers::{KINDS, context, model_of};
use crate::support::*;

/// The page with its tables generated from the registries.
fn page_of_registries(page: &str) -> String {
    let tables = [
        ("routers", table("kind", &RouterConfig::facts())),
        ("balancers", table("key", &BalanceConfig::facts())),
    ];
    tables.into_iter().fold(page.to_string(), |page, (name, table)| {
        let (begin, end) = (format!("<!-- table of {name} -->\n"), "\n<!-- end of table -->");
        let (before, rest) = page.split_once(&begin).expect("the beginning of a table");
        let (_, after) = rest.split_once(end).expect("the end of a table");
        format!("{before}{begin}{table}{end}{after}")
    })
}

#[test]
fn the_page_on_models_has_the_tables_of_the_registries() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/models.md");
    let page = std::fs::read_to_string(path).expect("docs/models.md");
    let expected = page_of_registries(&page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &expected).expect("writable");
        return;
    }
    assert!(
        page == expected,
        "docs/models.md is out of date; write it: UPDATE_DOCS=1 cargo test --workspace --test it -- the_page_on_models"
    );
}

#[test]
fn kinds_are_exact_on_the_cpu_where_their_facts_say_so() {
    for (kind, _) in KINDS {
        let name = kind[0].split_once('=').expect("an assignment").1;
        let facts = RouterConfig::facts().into_iter().find(|(found, _)| *found == name).expect("a kind").1;
        // Every balancer with at least one router.
        let mut config = model_of(kind, &[]);
        let balance = &mut config.moe.balance;
        (balance.switch.switch, balance.sequence.sequence, balance.z.z) = (0.1, 0.1, 0.1);
        balance.importance.importance = 0.1;
        balance.orthogonality.orthogonality = 0.1;
        balance.likely_load.load = if name == "noisy_top_k" { 0.1 } else { 0.0 };
        balance.quantile.quantile = name == "top_k";
        balance.bias.bias_rate = if name == "group_limited" { 0.1 } else { 0.0 };
        let hash = |n_threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("threads");
            pool.install(|| {
                let (mut state, step) = (state(&config), step_config(4, 1e-3));
                (0..2).for_each(|t| {
                    train_step(&mut state, &batch(8 * t, 8), &step).expect("finite");
                });
                parameter_hash(&parameters(&state.model))
            })
        };
        assert_eq!(hash(1) == hash(3), facts.is_exact, "{name}");
    }
    assert!(BalanceConfig::facts().iter().all(|(_, facts)| facts.is_exact));
}

#[test]
fn loads_of_samples_add_up_and_do_not_depend_on_the_micro_batch() {
    let config = model_of(KINDS[0].0, &[]);
    let stats = |micro_batch: usize| {
        let report = train_step(&mut state(&config), &batch(0, 6), &step_config(micro_batch, 1e-3));
        report.expect("finite").routers.remove(0).1
    };
    let whole = stats(6);
    // Fractions of the scores of 8 experts, for each token.
    let confidence = whole.confidence / whole.n_tokens as f64;
    assert!((0.125..1.0).contains(&confidence), "{confidence}");
    assert_eq!(whole.by_sample().len(), 6);
    for (expert, n) in whole.load.iter().enumerate() {
        assert_eq!(whole.by_sample().map(|load| load[expert]).sum::<u64>(), *n);
    }
    let batch = batch(0, 6);
    for (sample, load) in whole.by_sample().enumerate() {
        let segments = &batch.segments[batch.token_range(sample..sample + 1)];
        let n_tokens = segments.iter().filter(|&&s| s != moe_train::model::PADDING).count() as u64;
        assert_eq!(load.iter().sum::<u64>(), 2 * n_tokens, "sample {sample}");
    }
    for micro_batch in [1, 4] {
        let split = stats(micro_batch);
        assert_eq!(split.loads, whole.loads, "{micro_batch}");
        assert!((split.confidence - whole.confidence).abs() < 1e-4, "{micro_batch}");
    }
}

#[test]
fn latent_experts_work_between_two_projections() {
    let config = model_of(KINDS[0].0, &["moe.latent=5", "moe.shared=0"]);
    let (d, f, l) = (config.d_model, config.moe.expert_ffn, 5);
    // Larger values than those of an untrained model, so that a sum left out would show.
    let small = Model::new(&config, 1, &Device::flex());
    let size = moe_train::model::size::size(&config).total as usize;
    let values = parameters(&small).into_iter().map(|p| p.value * 3.0).collect();
    let model = replace_all(small, values);
    let all = parameters(&model);
    assert_eq!(
        size,
        all.iter().filter(|p| !p.name.ends_with("balance_bias")).map(|p| p.len()).sum::<usize>()
    );
    let (layer, moe) = model.mixtures().next().expect("a mixture");
    let of = |name: &str| {
        let name = format!("blocks.{layer}.feed_forward.{name}");
        all.iter().find(|p| p.name == name).expect("a parameter").to_host()
    };
    let (into, back) = (of("latent.w_down"), of("latent.w_up"));
    let (gate, up, down) = (of("experts.w_gate"), of("experts.w_up"), of("experts.w_down"));
    assert_eq!((into.len(), up.len()), (d * l, config.moe.n_experts * l * f));

    let (x, ctx) = (noise(2, 7 * d), context(7, 0, Mode::Eval));
    let on = tensor(&x, [7, d], &Device::flex());
    let routing = moe.router().route(on.clone(), &ctx);
    let choices: Vec<usize> = routing.choices.into_data().iter::<i64>().map(|e| e as usize).collect();
    let weights = host(routing.weights);
    let y = host(moe.forward(on, &ctx).0);
    for t in 0..7 {
        let product = |x: &[f32], w: &[f32], n: usize| -> Vec<f32> {
            (0..n).map(|j| x.iter().enumerate().map(|(i, x)| x * w[i * n + j]).sum()).collect()
        };
        let inner = product(&x[t * d..(t + 1) * d], &into, l);
        let mut sum = vec![0.0f32; l];
        for j in 0..2 {
            let at = choices[2 * t + j] * l * f;
            let [gate, up] = [&gate, &up].map(|w| product(&inner, &w[at..at + l * f], f));
            let hidden: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            let out = product(&hidden, &down[at..at + l * f], l);
            sum.iter_mut().zip(out).for_each(|(sum, y)| *sum += y * weights[2 * t + j]);
        }
        let expected = product(&sum, &back, d);
        assert!(expected.iter().any(|y| y.abs() > 1e-3), "{expected:?}");
        assert!(distance(&y[t * d..(t + 1) * d], &expected) < 1e-4, "token {t}");
    }
}
