use moe_train::train::train_step;

use crate::routers::{KINDS, model_of};
use crate::support::*;

#[test]
fn loads_of_samples_add_up_and_do_not_depend_on_the_micro_batch() {
    let config = model_of(KINDS[0].0, &[]);
    let stats = |micro_batch: usize| {
        let report = train_step(&mut state(&config), &batch(0, 6), &step_config(micro_batch, 1e-3));
        report.expect("finite").routers.remove(0).1
    };
    let whole = stats(6);
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
        assert_eq!(stats(micro_batch).loads, whole.loads, "{micro_batch}");
    }
}
