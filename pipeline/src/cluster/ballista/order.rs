//! What a driver sends to executors: a task, and what it takes to understand it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cluster::list::program;
use crate::stage::Task;

/// A task for an executor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// Folder that relative paths of the task start from.
    pub folder: PathBuf,
    /// What to do.
    pub task: Task,
}

/// The same as it travels: another version of the program may have other tasks.
#[derive(Serialize, Deserialize)]
struct Sent {
    program: String,
    order: serde_json::Value,
}

impl Order {
    /// As text.
    pub fn encode(&self) -> serde_json::Result<String> {
        serde_json::to_string(&Sent { program: program(), order: serde_json::to_value(self)? })
    }

    /// From the text.
    ///
    /// # Errors
    /// What is wrong, in words: the driver is another version of the program.
    pub fn decode(text: &str) -> Result<Order, String> {
        let sent: Sent = serde_json::from_str(text).map_err(|e| format!("an order cannot be read: {e}"))?;
        if sent.program != program() {
            return Err(format!(
                "the driver is version {} of the program, and this executor is {}; use one program on all machines",
                sent.program,
                program()
            ));
        }
        serde_json::from_value(sent.order).map_err(|e| format!("an order cannot be read: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::exact::keys::ExactKeys;

    #[test]
    fn orders_travel_and_those_of_other_programs_are_refused() {
        let task = Task::new("work".as_ref(), 3, 5, ExactKeys { run: 3 }, "work/a\n\"b".into());
        let order = Order { folder: "/x, 100%".into(), task };
        let text = order.encode().unwrap();
        assert_eq!(Order::decode(&text).unwrap(), order);
        let error = Order::decode(&text.replacen(&program(), "0.0.1 (1, 1)", 1)).unwrap_err();
        assert!(error.contains("version 0.0.1 (1, 1)"), "{error}");
        assert!(Order::decode("x").unwrap_err().contains("cannot be read"));
    }
}
