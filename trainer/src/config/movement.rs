//! From groups to what moves each parameter: the rule, the rate, and the group that matches it.

use glob::Pattern;
use moe_cli::nearest::near;

use super::RunConfig;
use super::groups::{GroupValues, moments_of, own_keys, short};
use super::parse::Values;
use crate::error::{Error, Result};
use crate::model::parameters::{self, Parameter};
use crate::optim::rule::{self, Entry};
use crate::optim::{Group, Groups, Moments};
use crate::settings;
use crate::settings::value::Value;

impl GroupValues {
    /// The group, with the settings of its rule that it does not have from `values`.
    fn group(&self, values: &Values) -> Result<Group, String> {
        let word = match self.rule() {
            Some(word) => word.to_string(),
            None => values.word("optim.kind")?,
        };
        let entry = rule::find(&word)?;
        let keys: Vec<&str> = (entry.keys)().iter().map(short).collect();
        let is_own = |name: &str| own_keys().iter().any(|(own, _)| *own == name);
        let strange = |name: &&&str| !keys.contains(*name) && !is_own(name);
        if let Some(name) = self.settings.keys().find(strange) {
            return Err(format!(
                "`{name}` is not a setting of the rule {word:?}, which has {}",
                keys.join(", ")
            ));
        }
        let beside = self.settings.keys().find(|name| **name != "frozen");
        if let (true, Some(name)) = (self.is_frozen(), beside) {
            return Err(format!(
                "`frozen = true` and `{name}`: frozen parameters have no {name}; remove one of them"
            ));
        }
        let rule = (entry.read)(&OfGroup { group: self, values, entry })?;
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let group = Group::new(&names, rule).map_err(|error| error.to_string())?;
        if self.is_frozen() {
            return Ok(group.frozen());
        }
        let group = group.remembering(self.moments().unwrap_or(moments(values)));
        let group = match self.settings.get("clip") {
            Some(Value::Float(norm)) => group.clipped(*norm),
            _ => group,
        };
        match (self.settings.get("lr"), values.get("optim.lr")) {
            (Some(Value::Float(_)), Some(Value::Float(0.0))) => {
                Err("`lr`: schedules are relative to optim.lr, which is 0; set it above 0".to_string())
            }
            (Some(Value::Float(rate)), Some(Value::Float(all))) => Ok(group.at_rate(rate / all)),
            _ => Ok(group),
        }
    }
}

/// The type of the moments of the default rule.
fn moments(values: &Values) -> Moments {
    values.word("optim.moments").map_or(Moments::F32, |word| moments_of(&word))
}

/// Settings of a group's rule: its own, then those of the default rule.
struct OfGroup<'a> {
    group: &'a GroupValues,
    values: &'a Values,
    entry: &'a Entry,
}

impl settings::Values for OfGroup<'_> {
    fn value(&self, name: &str) -> Option<Value> {
        let key = (self.entry.keys)().into_iter().find(|key| key.name == name);
        let own = key.and_then(|key| self.group.settings.get(short(&key)).cloned());
        own.or_else(|| self.values.get(name))
    }
}

/// The default rule and the groups, from values that have been checked one by one. Problems go to `problems`.
pub(super) fn groups(values: &Values, problems: &mut Vec<String>) -> Result<Groups, String> {
    let rule = rule::read(&values.word("optim.kind")?, values)?;
    let mut groups = Groups::of_all(rule).remembering(moments(values));
    for group in values.groups() {
        match group.group(values) {
            Ok(group) => groups = groups.with(group),
            Err(problem) => problems.push(format!("{}: {problem}", group.at)),
        }
    }
    Ok(groups)
}

/// How a parameter is updated.
#[derive(Debug, Clone, PartialEq)]
pub struct Movement {
    /// Its name.
    pub parameter: String,
    /// Number of its group, from 1, and the group's pattern that matches; absent: the default rule.
    pub group: Option<(usize, String)>,
    /// Name of the rule that updates it; absent: none.
    pub rule: Option<String>,
    /// Whether it is frozen.
    pub is_frozen: bool,
    /// Its highest learning rate.
    pub rate: f64,
    /// Whether weight decay applies to it.
    pub is_decayed: bool,
}

impl RunConfig {
    /// How each parameter is updated, in the model's order.
    pub fn movements(&self) -> Vec<Movement> {
        let given: Vec<&GroupValues> = self.values.groups().iter().collect();
        let model = self.model(1, 1);
        let transfer = model.transfer();
        let movement = |parameter: Parameter| {
            let (index, pattern) = self.groups.find(&parameter.name);
            let group = self.groups.of(&parameter.name);
            let word = match index.checked_sub(1).and_then(|index| given[index].rule()) {
                Some(word) => word.to_string(),
                None => self.values.word("optim.kind").unwrap_or_default(),
            };
            let rule = match group.rule.instead(&parameter) {
                Some((other, _)) => format!("{other} for {word}"),
                None => word,
            };
            let factors = transfer.multipliers(&parameter, group.rule_of(&parameter).kind());
            let moves = !group.is_frozen && parameters::is_trained(&parameter.name);
            Movement {
                group: pattern.map(|pattern| (index, pattern.to_string())),
                rule: moves.then_some(rule),
                is_frozen: group.is_frozen,
                rate: self.optim.lr * group.rate * factors.rate,
                is_decayed: moves && parameter.is_decayed(),
                parameter: parameter.name,
            }
        };
        parameters::outline(&model).into_iter().map(movement).collect()
    }

    /// Refuses groups with a pattern that matches no parameter, or with a decay for parameters that never
    /// decay.
    pub(super) fn check_groups(&self) -> Result<()> {
        let given = self.values.groups();
        if given.is_empty() {
            return Ok(());
        }
        let movements = self.movements();
        let mut problems = Vec::new();
        for (group, values) in given.iter().enumerate() {
            let is_known = |name: &&String| {
                let pattern = Pattern::new(name);
                pattern.is_ok_and(|pattern| movements.iter().any(|m| pattern.matches(&m.parameter)))
            };
            for name in values.names.iter().filter(|name| !is_known(name)) {
                let all: Vec<&str> = movements.iter().map(|movement| movement.parameter.as_str()).collect();
                let near = near(name, &all).map_or_else(String::new, |near| format!(" such as {near:?}"));
                problems.push(format!(
                    "{}: {name:?} does not match any parameter; `moe-train config --groups` without it lists \
                     them{near}",
                    values.at
                ));
            }
            let of_group =
                || movements.iter().filter(|m| m.group.as_ref().is_some_and(|(n, _)| *n == group + 1));
            let decays = values.settings.contains_key("weight_decay");
            if decays && of_group().next().is_some() && !of_group().any(|movement| movement.is_decayed) {
                problems.push(format!(
                    "{}: `weight_decay`: norms, biases, embeddings and the output projection have none, and the group \
                     has nothing else",
                    values.at
                ));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Config(problems)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::KEYS;
    use crate::settings::Key;

    const TWO: &str = "[optim]\nlr = 0.01\n\n[[optim.group]]\nnames = [\"blocks.*.feed_forward.experts.*\"]\nrule = \"muon\"\n\
                       lr = 1\nmomentum = 0.9\n\n[[optim.group]]\nnames = [\"*.router.*\", \"embedding\"]\nfrozen = true\n";

    fn of(text: &str) -> Result<RunConfig> {
        let (mut values, mut problems) = (Values::default(), Vec::new());
        values.read_toml(text, "run.toml", &mut problems);
        RunConfig::new(values, problems)
    }

    fn problem(text: &str) -> String {
        of(text).expect_err(text).to_string()
    }

    #[test]
    fn groups_come_back_from_what_is_written_and_count_in_the_fingerprint() {
        let config = of(TWO).expect("valid");
        let text = config.values.to_toml(false);
        assert!(text.contains("[optim.muon]") && text.contains("beta1 = 0.9"), "{text}");
        let again = of(&text).expect("valid");
        assert_eq!(
            (again.values.to_toml(false), again.values.fingerprint()),
            (text, config.values.fingerprint())
        );
        assert!(config.values.identity_changes(&again.values).is_empty());
        let other = of(&TWO.replace("0.9", "0.8")).expect("valid");
        assert_ne!(other.values.fingerprint(), config.values.fingerprint());
        let changes = config.values.identity_changes(&other.values);
        assert_eq!(changes.len(), 1);
        assert!(
            changes[0].text.contains("momentum = 0.9, rule") || changes[0].text.contains("momentum = 0.9")
        );
        let without = of("[optim]\nlr = 0.01\n").expect("valid").values;
        assert!(
            !without.to_toml(false).contains("group") && !without.to_toml(false).contains("[optim.muon]")
        );
    }

    #[test]
    fn the_configuration_of_a_run_without_groups_is_what_it_was() {
        let text = Values::default().to_toml(false);
        let optim = "[optim]\nkind = \"adamw\"\nbeta1 = 0.9\nbeta2 = 0.95\neps = 1e-8\nweight_decay = 0.1\nlr = 0.002\nclip = 1.0\n\n[schedule]";
        assert!(text.contains(optim), "{text}");
        let is_identity = |key: &&Key| key.identity && Values::default().applies(key);
        let line = |key: &Key| Some(format!("{} = {}\n", key.name, Values::default().get(key.name)?));
        let lines: String = KEYS.iter().filter(is_identity).filter_map(line).collect();
        assert_eq!(Values::default().fingerprint(), moe_shards::Hash::of(lines.as_bytes()));
    }

    #[test]
    fn each_parameter_moves_by_the_last_group_that_matches() {
        let movements = of(TWO).expect("valid").movements();
        let of = |name: &str| movements.iter().find(|m| m.parameter == name).expect("a parameter").clone();
        let experts = of("blocks.1.feed_forward.experts.w_up");
        assert_eq!(experts.group, Some((1, "blocks.*.feed_forward.experts.*".to_string())));
        assert_eq!((experts.rule.as_deref(), experts.is_decayed), (Some("muon"), true));
        assert!((experts.rate - 1.0).abs() < 1e-12);
        let bias = of("blocks.1.feed_forward.router.balance_bias");
        assert!(bias.is_frozen && bias.rule.is_none() && of("embedding").is_frozen);
        let norm = of("norm.weight");
        assert_eq!((norm.group, norm.rule.as_deref(), norm.rate), (None, Some("adamw"), 0.01));
    }

    #[test]
    fn frozen_parameters_and_rules_of_one_tensor_take_less_memory() {
        let kept = |text: &str| {
            let config = of(text).expect("valid");
            crate::optim::kept_bytes(&config.groups, &config.model(100, 8)).moments
        };
        let all = crate::model::size::size(&of("").expect("valid").model(100, 8)).total;
        assert_eq!((kept(""), kept("[optim]\nkind = \"lion\"\n")), (8 * all, 4 * all));
        assert_eq!(kept("[[optim.group]]\nnames = [\"*\"]\nfrozen = true\n"), 0);
        let average = |text: &str| {
            let config = of(text).expect("valid");
            crate::optim::kept_bytes(&config.groups, &config.model(100, 8)).average
        };
        assert_eq!(average(""), 4 * all);
        assert_eq!(average("[[optim.group]]\nnames = [\"*\"]\nfrozen = true\n"), 0);
        // The second moment of AdamW stays in f32.
        assert_eq!(kept("[optim]\nmoments = \"bf16\"\n"), 6 * all);
        assert_eq!(
            kept("[optim]\nkind = \"lion\"\n[[optim.group]]\nnames = [\"*\"]\nmoments = \"bf16\"\n"),
            2 * all
        );
    }

    #[test]
    fn invalid_groups_are_refused_with_line_and_nearest_names() {
        let group =
            |lines: &str| format!("[optim]\nlr = 0.01\n[[optim.group]]\nnames = [\"embedding\"]\n{lines}\n");
        let cases = [
            (group("learn_rate = 1.0"), "run.toml, line 5: unknown key `learn_rate` of [[optim.group]]"),
            (
                group("weight_decy = 1.0"),
                "run.toml, line 5: unknown key `weight_decy` of [[optim.group]]; did you mean `weight_decay`?",
            ),
            (group("rule = \"mouon\""), "did you mean \"muon\"?"),
            (group("lr = -1.0"), "run.toml, line 5: `lr`: expected a number from 0.0 to 10.0, found -1.0"),
            (
                group("nesterov = true"),
                "run.toml, line 3: `nesterov` is not a setting of the rule \"adamw\", which has beta1, beta2, eps, weight_decay",
            ),
            (group("frozen = true\nlr = 1.0"), "run.toml, line 3: `frozen = true` and `lr`"),
            (group("weight_decay = 0.5"), "run.toml, line 3: `weight_decay`: norms"),
            (group("[[optim.group]]\nlr = 0.1"), "run.toml, line 5: [[optim.group]] without `names`"),
            (
                group("[[optim.group]]\nnames = [\"*.expert.*\"]"),
                "run.toml, line 5: \"*.expert.*\" does not match any parameter",
            ),
            (group("[[optim.group]]\nnames = [\"***\"]"), "run.toml, line 5: "),
            (group("[[optim.group]]\nnames = \"embedding\""), "run.toml, line 6: `names`: expected patterns"),
            (
                group("[optim.sgd]\nmomentum = 0.5"),
                "`optim.sgd.momentum` is a setting of optim.kind = \"sgd\"",
            ),
            (group("lr = 0.1").replace("lr = 0.01", "lr = 0"), "`lr`: schedules are relative to optim.lr"),
            ("optim = 1\n".to_string(), "optim"),
            (
                "[optim]\ngroup = 1\n".to_string(),
                "run.toml, line 2: `optim.group`: expected [[optim.group]] tables, found 1",
            ),
        ];
        for (text, expected) in cases {
            let found = problem(&text);
            assert!(found.contains(expected), "{text}: {found}");
        }
    }
}
