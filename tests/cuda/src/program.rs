//! PTX, from text to statements with resolved operands (PTX ISA 8.7, sections 4 and 5).

use std::collections::HashMap;

use crate::decode::decode;
use crate::flow::meetings;
use crate::memory::{LOCAL, Memory, PARAM, SHARED};
use crate::statement::{Operand, Statement, width};
use crate::warp::Step;

/// A kernel of a module, ready to run.
pub struct Kernel {
    pub(crate) name: String,
    /// Offset and size in bytes of each parameter in the parameter space.
    pub(crate) parameters: Vec<(usize, usize)>,
    pub(crate) steps: Vec<Step>,
    /// For each step, where lanes that diverge there reconverge.
    pub(crate) meetings: Vec<usize>,
    /// Registers of a lane, including constants and special registers.
    pub(crate) registers: usize,
    /// Initial values of registers, the same for all lanes.
    pub(crate) constants: Vec<(usize, u64)>,
    pub(crate) specials: Vec<(usize, Special)>,
    /// Bytes of local memory of a lane.
    pub(crate) local: usize,
    /// Bytes of shared memory with a size in the module; the rest is given at launch.
    pub(crate) shared: usize,
}

/// A register with the position of a thread, by axis if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Thread(usize),
    Threads(usize),
    Block(usize),
    Blocks(usize),
    Lane,
}

/// The kernels of a module by name.
///
/// # Errors
/// The first unknown statement, with its kernel.
pub fn parse(text: &str, memory: &Memory) -> Result<HashMap<String, Kernel>, String> {
    // Comments, and lines about sources, which end without a semicolon.
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or(""));
    let lines = lines.filter(|line| !matches!(line.split_whitespace().next(), Some(".loc" | ".file")));
    let text = lines.collect::<Vec<_>>().join("\n");
    let mut symbols = HashMap::new();
    let mut shared = 0;
    let mut kernels = HashMap::new();
    let mut rest = text.as_str();
    while let Some(end) = rest.find([';', '{']) {
        let head = rest[..end].trim();
        // A list of values belongs to a variable, not to a function.
        if rest[end..].starts_with('{') && !head.ends_with('=') {
            let body_end = end + block_end(&rest[end..])?;
            let body = &rest[end + 1..body_end - 1];
            if let Some(at) = head.find(".entry") {
                let kernel = Reader::kernel(&head[at + ".entry".len()..], body, &symbols, shared)?;
                kernels.insert(kernel.name.clone(), kernel);
            }
            rest = &rest[body_end..];
        } else {
            let end = rest.find(';').ok_or("a variable without end")?;
            variable(rest[..end].trim(), &mut symbols, &mut shared, memory)?;
            rest = &rest[end + 1..];
        }
    }
    Ok(kernels)
}

/// Where the block that begins at the start of `text` ends.
fn block_end(text: &str) -> Result<usize, String> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return Ok(at + 1);
        }
    }
    Err("a block without end".into())
}

/// Reads `.extern .shared .align 128 .b8 cube_shared[]` and the like.
fn variable(
    text: &str,
    symbols: &mut HashMap<String, u64>,
    shared: &mut usize,
    memory: &Memory,
) -> Result<(), String> {
    let (declaration, values) = text.split_once('=').map_or((text, None), |(a, b)| (a, Some(b)));
    let is_shared = declaration.split_whitespace().any(|word| word == ".shared");
    if !is_shared && !declaration.split_whitespace().any(|word| matches!(word, ".global" | ".const")) {
        return Ok(());
    }
    let Declared { name, width, bytes, align } = declared(declaration)?;
    let address = if is_shared {
        SHARED + place(shared, bytes, align)
    } else {
        let at = memory.allocate(bytes.max(1)).ok_or("no memory for a variable")?;
        let list = values.unwrap_or("").trim().trim_start_matches('{').trim_end_matches('}');
        for (i, value) in list.split(',').filter(|value| !value.trim().is_empty()).enumerate() {
            let value = number(value.trim()).ok_or_else(|| format!("not a number: {value}"))?;
            memory.store(at + (i * width) as u64, width, value).map_err(|at| format!("{at:#x}"))?;
        }
        at
    };
    symbols.insert(name.to_owned(), address);
    Ok(())
}

/// A declaration such as `.shared .align 128 .b8 tile[4096]`.
struct Declared<'t> {
    name: &'t str,
    /// Bytes of an element.
    width: usize,
    /// Bytes of all elements; 0 if the launch gives the size.
    bytes: usize,
    align: usize,
}

fn declared(text: &str) -> Result<Declared<'_>, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let wrong = || format!("not understood: {text}");
    let last = words.last().ok_or_else(wrong)?;
    let (name, count) = match last.split_once('[') {
        None => (*last, 1),
        Some((name, "]")) => (name, 0),
        Some((name, count)) => (name, count.trim_end_matches(']').parse().map_err(|_| wrong())?),
    };
    let width = words.iter().find_map(|word| width(word)).ok_or_else(wrong)?;
    // The alignment of a pointer parameter is that of what it points to.
    let at = words.iter().position(|word| *word == ".align").filter(|_| !words.contains(&".ptr"));
    let align = match at {
        None => width,
        Some(at) => words.get(at + 1).and_then(|align| align.parse().ok()).ok_or_else(wrong)?,
    };
    Ok(Declared { name, width, bytes: count * width, align })
}

/// Takes this many bytes after `end`, and returns where they begin.
fn place(end: &mut usize, bytes: usize, align: usize) -> u64 {
    let at = end.next_multiple_of(align);
    *end = at + bytes;
    at as u64
}

/// The bits of a literal.
fn number(text: &str) -> Option<u64> {
    if let Some(bits) = text.strip_prefix("0f").or(text.strip_prefix("0F")) {
        return u64::from_str_radix(bits, 16).ok();
    }
    if let Some(bits) = text.strip_prefix("0d").or(text.strip_prefix("0D")) {
        return u64::from_str_radix(bits, 16).ok();
    }
    let (digits, is_negative) = text.strip_prefix('-').map_or((text, false), |digits| (digits, true));
    let digits = digits.trim_end_matches('U');
    let value = match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => digits.parse().ok()?,
    };
    Some(if is_negative { value.wrapping_neg() } else { value })
}

/// Reads one kernel.
struct Reader<'a> {
    symbols: &'a HashMap<String, u64>,
    own: HashMap<String, u64>,
    registers: HashMap<String, usize>,
    constants: HashMap<u64, usize>,
    labels: HashMap<String, usize>,
    count: usize,
}

impl<'a> Reader<'a> {
    fn kernel(
        head: &str,
        body: &str,
        symbols: &'a HashMap<String, u64>,
        shared: usize,
    ) -> Result<Kernel, String> {
        let (name, list) = head.split_once('(').unwrap_or((head, ""));
        let name = name.split_whitespace().next().unwrap_or("").to_owned();
        let list = list.split(')').next().unwrap_or("");
        let (own, registers, constants, labels) = Default::default();
        let mut reader = Self { symbols, own, registers, constants, labels, count: 0 };
        let mut parameters = Vec::new();
        let mut end = 0usize;
        for parameter in list.split(',').filter(|text| !text.trim().is_empty()) {
            let Declared { name, bytes, align, .. } = declared(parameter)?;
            let at = place(&mut end, bytes, align);
            reader.own.insert(name.to_owned(), PARAM + at);
            parameters.push((at as usize, bytes));
        }
        let mut shared = shared;
        let (steps, local) =
            reader.body(body, &mut shared).map_err(|text| format!("kernel {name}: {text}"))?;
        let specials =
            reader.registers.iter().filter_map(|(name, slot)| Some((*slot, special(name)?))).collect();
        let constants = reader.constants.iter().map(|(value, slot)| (*slot, *value)).collect();
        let meetings = meetings(&steps);
        let registers = reader.count;
        Ok(Kernel { name, parameters, steps, meetings, registers, constants, specials, local, shared })
    }

    fn body(&mut self, body: &str, shared: &mut usize) -> Result<(Vec<Step>, usize), String> {
        let mut local = 0;
        let mut lines = Vec::new();
        for statement in statements(body) {
            if let Some(label) = statement.strip_suffix(':') {
                self.labels.insert(label.to_owned(), lines.len());
            } else if statement.starts_with(".local") {
                let Declared { name, bytes, align, .. } = declared(statement)?;
                self.own.insert(name.to_owned(), LOCAL + place(&mut local, bytes, align));
            } else if statement.starts_with(".shared") {
                let Declared { name, bytes, align, .. } = declared(statement)?;
                self.own.insert(name.to_owned(), SHARED + place(shared, bytes, align));
            } else if !statement.starts_with('.') {
                lines.push(statement);
            }
        }
        let steps = lines
            .iter()
            .map(|line| self.step(line).map_err(|text| format!("{text}: {}", line.replace('\n', " "))))
            .collect::<Result<_, _>>()?;
        Ok((steps, local))
    }

    fn step(&mut self, line: &str) -> Result<Step, String> {
        let (guard, line) = match line.strip_prefix('@') {
            None => (None, line),
            Some(line) => {
                let (guard, line) = line.split_once(char::is_whitespace).ok_or("a guard alone")?;
                let (name, is_not) = guard.strip_prefix('!').map_or((guard, false), |name| (name, true));
                (Some((self.register(name), is_not)), line.trim())
            }
        };
        let (opcode, operands) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let opcode: Vec<String> = opcode.split('.').map(str::to_owned).collect();
        let operands =
            split(operands).into_iter().map(|text| self.operand(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(Step { guard, action: decode(&Statement { opcode, operands })?, text: line.into() })
    }

    fn operand(&mut self, text: &str) -> Result<Operand, String> {
        if let Some(inner) = text.strip_prefix('{') {
            let inner = inner.trim_end_matches('}');
            return split(inner)
                .into_iter()
                .map(|text| self.value(text))
                .collect::<Result<_, _>>()
                .map(Operand::Registers);
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.trim_end_matches(']').trim();
            let at = inner.find(['+', '-']).filter(|at| *at > 0);
            let (base, offset) = at.map_or((inner, ""), |at| inner.split_at(at));
            let offset = offset.trim_start_matches('+').trim();
            let offset = if offset.is_empty() { Some(0) } else { number(offset) };
            let offset = offset.ok_or_else(|| format!("not an offset: {text}"))?;
            return Ok(Operand::Address(self.value(base.trim())?, offset as i64));
        }
        if let Some((a, b)) = text.split_once('|') {
            return Ok(Operand::Pair(self.register(a), self.register(b)));
        }
        if let Some(target) = self.labels.get(text) {
            return Ok(Operand::Label(*target));
        }
        self.value(text).map(Operand::Register)
    }

    /// The register of a register, symbol or literal.
    fn value(&mut self, text: &str) -> Result<usize, String> {
        if text.starts_with('%') {
            return Ok(self.register(text));
        }
        let symbol = self.own.get(text).or_else(|| self.symbols.get(text)).copied();
        let value = symbol.or_else(|| number(text));
        if let Some(value) = value {
            return Ok(self.constant(value));
        }
        // Names that inline assembly declares.
        if text.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            return Ok(self.register(text));
        }
        Err(format!("not understood: {text}"))
    }

    fn constant(&mut self, value: u64) -> usize {
        *self.constants.entry(value).or_insert_with(|| {
            self.count += 1;
            self.count - 1
        })
    }

    fn register(&mut self, name: &str) -> usize {
        if name == "WARP_SZ" {
            return self.constant(32);
        }
        if let Some(slot) = self.registers.get(name) {
            return *slot;
        }
        self.registers.insert(name.to_owned(), self.count);
        self.count += 1;
        self.count - 1
    }
}

fn special(name: &str) -> Option<Special> {
    let (name, axis) = name.split_once('.').map_or((name, 0), |(name, axis)| match axis {
        "x" => (name, 0),
        "y" => (name, 1),
        _ => (name, 2),
    });
    Some(match name {
        "%tid" => Special::Thread(axis),
        "%ntid" => Special::Threads(axis),
        "%ctaid" => Special::Block(axis),
        "%nctaid" => Special::Blocks(axis),
        "%laneid" => Special::Lane,
        _ => return None,
    })
}

/// Statements and labels; the braces of inner scopes are dropped.
fn statements(body: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = body.trim_start();
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix(['{', '}']) {
            rest = inner.trim_start();
            continue;
        }
        let end = rest.find(';').unwrap_or(rest.len());
        // A label ends with a colon before any space.
        let word_end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let end = if rest[..word_end.min(end)].ends_with(':') {
            found.push(&rest[..word_end]);
            word_end
        } else {
            found.push(rest[..end].trim());
            (end + 1).min(rest.len())
        };
        rest = rest[end..].trim_start();
    }
    found
}

/// Parts between commas outside brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}
