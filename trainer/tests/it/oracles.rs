//! Naive attentions, one for each kind: as slow and plain as the formulas.

use burn::tensor::activation::{sigmoid, silu, softmax, softplus};
use burn::tensor::{Int, Tensor, TensorData};
use moe_train::model::attention::delta::Decay;
use moe_train::model::attention::grouped_query::{Gate, RotaryBlocks};
use moe_train::model::attention::{DeltaSettings, GroupedQuerySettings, LatentSettings, SparseSettings};
use moe_train::model::config::AttentionConfig;

use crate::attention::{Named, PLACE};
use crate::support::*;

/// A naive attention: from weights by name and the tokens of one document to their result.
pub type Oracle = Box<dyn Fn(&Named, Tensor<2>) -> Tensor<2>>;

/// The naive form of a kind.
pub fn oracle(config: &AttentionConfig) -> Oracle {
    match config.clone() {
        AttentionConfig::GroupedQuery(settings) => {
            let turns = settings.rotary == RotaryBlocks::All;
            Box::new(move |w, x| grouped_query(&settings, usize::MAX, turns, w, x))
        }
        AttentionConfig::SlidingWindow(settings) => {
            let turns = settings.heads.rotary != RotaryBlocks::None;
            Box::new(move |w, x| grouped_query(&settings.heads, settings.window.window, turns, w, x))
        }
        AttentionConfig::Latent(settings) => Box::new(move |w, x| latent(&settings, w, x)),
        AttentionConfig::Delta(settings) => Box::new(move |w, x| delta(&settings, w, x)),
        AttentionConfig::Sparse(settings) => Box::new(move |w, x| sparse(&settings, w, x)),
    }
}

fn rms(x: Tensor<2>, weight: &Tensor<2>, eps: f64) -> Tensor<2> {
    let mean = (x.clone() * x.clone()).mean_dim(1);
    x / (mean + eps).sqrt() * weight.clone()
}

/// The first channels rotated by the number of the row.
fn turned(x: Tensor<2>, width: usize, theta: f64) -> Tensor<2> {
    let ([n, columns], half) = (x.dims(), width / 2);
    let table = |f: fn(f64) -> f64| {
        let angle = |i: usize| (i / half) as f64 * theta.powf(-2.0 * (i % half) as f64 / width as f64);
        let values: Vec<f32> = (0..n * half).map(|i| f(angle(i)) as f32).collect();
        tensor(&values, [n, half], &x.device())
    };
    let (cos, sin) = (table(f64::cos), table(f64::sin));
    let (a, b) = (x.clone().narrow(1, 0, half), x.clone().narrow(1, half, half));
    let mut parts = vec![a.clone() * cos.clone() - b.clone() * sin.clone(), a * sin + b * cos];
    if columns > width {
        parts.push(x.narrow(1, width, columns - width));
    }
    Tensor::cat(parts, 1)
}

/// One head, query by query over the keys that it sees.
fn head(
    [q, k, v]: [Tensor<2>; 3],
    window: usize,
    softcap: Option<f64>,
    sink: Option<Tensor<2>>,
) -> Tensor<2> {
    let [n, width] = q.dims();
    let rows = (0..n).map(|t| {
        let seen: Vec<i64> = (0..=t).filter(|&j| t - j < window).map(|j| j as i64).collect();
        let n_seen = seen.len();
        let seen = Tensor::<1, Int>::from_data(TensorData::new(seen, [n_seen]), &q.device());
        let query = q.clone().narrow(0, t, 1).transpose();
        let scores = k.clone().select(0, seen.clone()).matmul(query) / (width as f64).sqrt();
        let scores = match softcap {
            Some(cap) => (scores / cap).tanh() * cap,
            None => scores,
        };
        let scores = Tensor::cat(std::iter::once(scores).chain(sink.clone()).collect(), 0);
        let p = softmax(scores, 0).narrow(0, 0, n_seen);
        p.transpose().matmul(v.clone().select(0, seen))
    });
    Tensor::cat(rows.collect(), 0)
}

fn grouped_query(s: &GroupedQuerySettings, window: usize, turns: bool, w: &Named, x: Tensor<2>) -> Tensor<2> {
    let dim = s.head_dim.unwrap_or(PLACE.d_model / s.heads);
    let qkv = x.clone().matmul(w["w_qkv"].clone());
    let positioned = |mut x: Tensor<2>, norm: &str| {
        if s.qk_norm {
            x = rms(x, &w[norm], PLACE.norm_eps);
        }
        if turns { turned(x, (dim as f64 * s.rotary_fraction) as usize, s.rope_theta) } else { x }
    };
    let heads = (0..s.heads).map(|h| {
        let part = |number: usize| qkv.clone().narrow(1, number * dim, dim);
        let kv = s.heads + h / (s.heads / s.kv_heads);
        let (q, k) = (positioned(part(h), "q_norm.weight"), positioned(part(kv), "k_norm.weight"));
        let sink = s.sinks.then(|| w["sinks"].clone().narrow(1, h, 1));
        let y = head([q, k, part(kv + s.kv_heads)], window, s.softcap, sink);
        let gate = |from, n| sigmoid(x.clone().matmul(w["w_gate"].clone().narrow(1, from, n)));
        match s.gate {
            Gate::None => y,
            Gate::Head => y * gate(h, 1),
            Gate::Channel => y * gate(h * dim, dim),
        }
    });
    Tensor::cat(heads.collect(), 1).matmul(w["w_out"].clone())
}

fn latent(s: &LatentSettings, w: &Named, x: Tensor<2>) -> Tensor<2> {
    let query = match s.q_rank {
        Some(_) => rms(x.clone().matmul(w["w_q_latent"].clone()), &w["q_norm.weight"], 1e-6),
        None => x.clone(),
    };
    let query = query.matmul(w["w_q"].clone());
    let down = x.matmul(w["w_latent"].clone());
    let kv = rms(down.clone().narrow(1, 0, s.kv_rank), &w["kv_norm.weight"], 1e-6).matmul(w["w_kv"].clone());
    let (key_dim, kv_dim) = (s.nope_dim + s.rope_dim, s.nope_dim + s.value_dim);
    let heads = (0..s.heads).map(|h| {
        let mut parts = [Vec::new(), Vec::new()];
        if s.nope_dim > 0 {
            parts[0].push(query.clone().narrow(1, h * key_dim, s.nope_dim));
            parts[1].push(kv.clone().narrow(1, h * kv_dim, s.nope_dim));
        }
        if s.rope_dim > 0 {
            let q = query.clone().narrow(1, h * key_dim + s.nope_dim, s.rope_dim);
            parts[0].push(turned(q, s.rope_dim, s.rope_theta));
            parts[1].push(turned(down.clone().narrow(1, s.kv_rank, s.rope_dim), s.rope_dim, s.rope_theta));
        }
        let [q, k] = parts.map(|parts| Tensor::cat(parts, 1));
        head([q, k, kv.clone().narrow(1, h * kv_dim + s.nope_dim, s.value_dim)], usize::MAX, None, None)
    });
    Tensor::cat(heads.collect(), 1).matmul(w["w_out"].clone())
}

/// Token by token, each of which sees all before it through the state.
fn delta(s: &DeltaSettings, w: &Named, x: Tensor<2>) -> Tensor<2> {
    let (n, key_dim, value_dim) = (x.dims()[0], s.key_dim, s.value_dim);
    let qkv = x.clone().matmul(w["w_qkv"].clone());
    let columns = qkv.dims()[1];
    let conv = w["conv"].clone().reshape([columns, s.conv]);
    let rows = (0..n).map(|t| {
        let taps = (0..s.conv.min(t + 1)).map(|back| {
            qkv.clone().narrow(0, t - back, 1) * conv.clone().narrow(1, s.conv - 1 - back, 1).transpose()
        });
        taps.reduce(|sum, tap| sum + tap).expect("a tap")
    });
    let qkv = silu(Tensor::cat(rows.collect(), 0));
    let decay_of = match s.decay {
        Decay::Channel => x.clone().matmul(w["w_decay_in"].clone()),
        Decay::Head => x.clone(),
    };
    let step = softplus(decay_of.matmul(w["w_decay"].clone()) + w["dt_bias"].clone(), 1.0);
    let beta = sigmoid(x.clone().matmul(w["w_beta"].clone()));
    let gate = x.matmul(w["w_gate_in"].clone()).matmul(w["w_gate"].clone());
    let gate = sigmoid(gate + w["b_gate"].clone());
    let unit = |x: Tensor<2>| x.clone() / ((x.clone() * x).sum_dim(1) + 1e-6).sqrt();
    let heads = (0..s.heads).map(|h| {
        let part = |from: usize, width: usize| qkv.clone().narrow(1, from + h * width, width);
        let (q, k) = (unit(part(0, key_dim)), unit(part(s.heads * key_dim, key_dim)));
        let v = part(2 * s.heads * key_dim, value_dim);
        let step = match s.decay {
            Decay::Channel => step.clone().narrow(1, h * key_dim, key_dim),
            Decay::Head => step.clone().narrow(1, h, 1).expand([n, key_dim]),
        };
        let kept = (step * w["a_log"].clone().narrow(1, h, 1).exp().neg()).exp();
        let mut state = Tensor::<2>::zeros([key_dim, value_dim], &qkv.device());
        let rows = (0..n).map(|t| {
            let of = |x: &Tensor<2>| x.clone().narrow(0, t, 1);
            state = state.clone() * of(&kept).transpose();
            let error = of(&v) - of(&k).matmul(state.clone());
            let share = of(&beta).narrow(1, h, 1);
            state = state.clone() + of(&k).transpose().matmul(error) * share;
            of(&q).matmul(state.clone()) / (key_dim as f64).sqrt()
        });
        let y = Tensor::cat(rows.collect(), 0);
        rms(y, &w["norm.weight"], PLACE.norm_eps) * gate.clone().narrow(1, h * value_dim, value_dim)
    });
    Tensor::cat(heads.collect(), 1).matmul(w["w_out"].clone())
}

/// The softmax of a query over some rows of keys, and their values weighted by it.
fn look(q: Tensor<2>, k: &Tensor<2>, v: &Tensor<2>, rows: Vec<usize>) -> (Vec<f32>, Tensor<2>) {
    let n = rows.len();
    let rows: Vec<i64> = rows.into_iter().map(|row| row as i64).collect();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [n]), &q.device());
    let width = q.dims()[1] as f64;
    let scores = q.matmul(k.clone().select(0, rows.clone()).transpose()) / width.sqrt();
    let p = softmax(scores, 1);
    (host(p.clone()), p.matmul(v.clone().select(0, rows)))
}

/// Token by token, branch by branch.
fn sparse(s: &SparseSettings, w: &Named, x: Tensor<2>) -> Tensor<2> {
    let (n, dim, block) = (x.dims()[0], s.head_dim, s.block);
    let qkv = x.clone().matmul(w["w_qkv"].clone());
    let gates = sigmoid(x.matmul(w["w_gate"].clone()));
    let part = |number: usize| qkv.clone().narrow(1, number * dim, dim);
    let group = s.heads / s.kv_heads;
    let mut heads = Vec::new();
    for kv in 0..s.kv_heads {
        let key = turned(part(s.heads + kv), dim, s.rope_theta);
        let value = part(s.heads + s.kv_heads + kv);
        let queries: Vec<Tensor<2>> =
            (0..group).map(|g| turned(part(kv * group + g), dim, s.rope_theta)).collect();
        let mean = |x: &Tensor<2>, c: usize| x.clone().narrow(0, c * block, block).mean_dim(0);
        let means = |x: &Tensor<2>| Tensor::cat((0..n / block).map(|c| mean(x, c)).collect::<Vec<_>>(), 0);
        let mut rows: Vec<Vec<Tensor<2>>> = vec![Vec::new(); group];
        for t in 0..n {
            let done = (t + 1) / block;
            let mut shares = vec![0.0; done];
            let mut of_means = Vec::new();
            for query in &queries {
                of_means.push((done > 0).then(|| {
                    let query = query.clone().narrow(0, t, 1);
                    let (p, y) = look(query, &means(&key), &means(&value), (0..done).collect());
                    shares.iter_mut().zip(p).for_each(|(sum, p)| *sum += p);
                    y
                }));
            }
            let own = t / block;
            let mut selected: Vec<usize> = (0..done).filter(|&c| c != own).collect();
            selected.sort_by(|&a, &b| shares[b].total_cmp(&shares[a]));
            selected.truncate(s.selected - 1);
            selected.push(own);
            let selected: Vec<usize> = (0..=t).filter(|j| selected.contains(&(j / block))).collect();
            let last: Vec<usize> = (0..=t).filter(|j| t - j < s.window).collect();
            for (g, of_means) in of_means.into_iter().enumerate() {
                let query = queries[g].clone().narrow(0, t, 1);
                let gate = |c: usize| gates.clone().narrow(0, t, 1).narrow(1, 3 * (kv * group + g) + c, 1);
                let mut y = look(query.clone(), &key, &value, selected.clone()).1 * gate(1)
                    + look(query, &key, &value, last.clone()).1 * gate(2);
                if let Some(of_means) = of_means {
                    y = y + of_means * gate(0);
                }
                rows[g].push(y);
            }
        }
        heads.extend(rows.into_iter().map(|rows| Tensor::cat(rows, 0)));
    }
    Tensor::cat(heads, 1).matmul(w["w_out"].clone())
}
