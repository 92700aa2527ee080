//! The pickle inside a PyTorch `.bin`, read as a list of tensors only.
//!
//! A pickle is a program. This reader implements the instructions that make numbers, strings, tuples and dictionaries,
//! and the few classes that describe a tensor of PyTorch; it calls nothing. Any other class is refused by name before
//! it is used.
//!
//! All nodes are in one arena and refer to each other by index. An instruction adds at most one node, so memory is
//! proportional to the pickle, however often it repeats or nests its parts, and nothing recurses.

use std::collections::HashMap;

/// A tensor as the pickle describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PickledTensor {
    pub(super) name: String,
    /// PyTorch's storage class, such as `FloatStorage`.
    pub(super) storage: String,
    /// The member of the archive with the storage's bytes.
    pub(super) key: String,
    /// Elements before the first one, inside the storage.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

/// Why a pickle cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum PickleError {
    #[error("the pickle ends in the middle of an instruction")]
    CutOff,
    #[error("the pickle has the instruction {0:#04x}, which a list of tensors does not need")]
    Instruction(u8),
    #[error("the pickle refers to {0}, which a list of tensors does not need: it was refused, and nothing was run")]
    Refused(String),
    #[error("the pickle is malformed: {0}")]
    Malformed(&'static str),
    #[error("tensor {0:?} is not described as PyTorch does")]
    Tensor(String),
}

type Result<T> = std::result::Result<T, PickleError>;

/// An index into the arena.
type Handle = usize;

#[derive(Debug)]
enum Node {
    /// A part of a tensor's description that the reader does not need.
    Other,
    Int(i64),
    Text(String),
    Class(Class),
    Tuple(Vec<Handle>),
    Dict(Vec<(Handle, Handle)>),
    Called {
        class: Class,
        args: Handle,
    },
    Storage(Handle),
}

/// The classes of a state dict.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Class {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    RebuildFromType,
    Storage(String),
    /// Referred to in a description, never called.
    Inert,
}

impl Class {
    fn known(module: &str, name: &str) -> Result<Self> {
        Ok(match (module, name) {
            ("collections", "OrderedDict" | "defaultdict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch._tensor", "_rebuild_from_type_v2") => Self::RebuildFromType,
            ("torch" | "torch.storage" | "torch.cuda", name) if name.ends_with("Storage") => {
                Self::Storage(name.to_owned())
            }
            ("torch", "Tensor" | "Size" | "device")
            | ("torch._tensor", "Tensor")
            | ("torch.nn.parameter", "Parameter") => Self::Inert,
            _ => {
                // A name can be as long as the file.
                let short = |text: &str| text.chars().take(80).collect::<String>();
                return Err(PickleError::Refused(format!("{}.{}", short(module), short(name))));
            }
        })
    }
}

/// Lists the tensors of a state dict. Other entries are skipped.
pub(super) fn tensors(pickle: &[u8]) -> Result<Vec<PickledTensor>> {
    let mut machine =
        Machine { input: pickle, arena: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
    let root = machine.run()?;
    let Node::Dict(entries) = machine.node(root)? else { return Ok(Vec::new()) };
    let mut tensors = Vec::new();
    for (key, value) in entries {
        if let Node::Text(name) = machine.node(*key)?
            && let Some(args) = machine.description(*value)?
        {
            let tensor = machine.tensor(name, args);
            tensors.push(tensor.ok_or_else(|| PickleError::Tensor(name.chars().take(80).collect()))?);
        }
    }
    Ok(tensors)
}

struct Machine<'a> {
    input: &'a [u8],
    arena: Vec<Node>,
    stack: Vec<Handle>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Handle>,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Handle> {
        loop {
            let [instruction] = self.array()?;
            if instruction == b'.' {
                return self.pop();
            }
            self.step(instruction)?;
        }
    }

    fn step(&mut self, instruction: u8) -> Result<()> {
        match instruction {
            // PROTO and FRAME have no effect here.
            0x80 => drop(self.array::<1>()?),
            0x95 => drop(self.array::<8>()?),
            b'(' => self.marks.push(self.stack.len()),
            b'N' | 0x88 | 0x89 => self.push(Node::Other),
            b'G' => {
                self.array::<8>()?;
                self.push(Node::Other);
            }
            b'K' => {
                let [byte] = self.array()?;
                self.push(Node::Int(byte.into()));
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Node::Int(number.into()));
            }
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Node::Int(number.into()));
            }
            0x8a => {
                let number = self.long()?;
                self.push(Node::Int(number));
            }
            b'X' => {
                let length = u32::from_le_bytes(self.array()?) as usize;
                self.text(length)?;
            }
            0x8c => {
                let [length] = self.array()?;
                self.text(length.into())?;
            }
            // A list is used like a tuple; its appended items are not needed.
            b')' | b']' => self.push(Node::Tuple(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            b't' | b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items));
            }
            0x85..=0x87 => {
                let count = usize::from(instruction - 0x84);
                let first = self.stack.len().checked_sub(count).filter(|first| *first >= self.floor());
                let items = self.stack.split_off(first.ok_or(PickleError::Malformed("a tuple of more than there is"))?);
                self.push(Node::Tuple(items));
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Dict(pairs(&items)?));
            }
            // An item of a list, and the attributes that BUILD gives an object: neither holds a tensor of a state dict.
            b'a' | b'b' => drop(self.pop()?),
            b'e' => drop(self.pop_to_mark()?),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.dict()?.push((key, value));
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                let pairs = pairs(&items)?;
                self.dict()?.extend(pairs);
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Node::Class(Class::known(&module, &name)?));
            }
            0x93 => self.stack_global()?,
            // REDUCE and NEWOBJ: the call is recorded, never run.
            b'R' | 0x81 => self.call()?,
            b'Q' => {
                let id = self.pop()?;
                self.push(Node::Storage(id));
            }
            b'q' => {
                let [slot] = self.array()?;
                self.remember(slot.into())?;
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.remember(slot)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let [slot] = self.array()?;
                self.recall(slot.into())?;
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.recall(slot)?;
            }
            other => return Err(PickleError::Instruction(other)),
        }
        Ok(())
    }

    fn bytes(&mut self, count: usize) -> Result<&[u8]> {
        let (taken, rest) = self.input.split_at_checked(count).ok_or(PickleError::CutOff)?;
        self.input = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.input.split_first_chunk::<N>().ok_or(PickleError::CutOff)?;
        self.input = rest;
        Ok(*taken)
    }

    /// LONG1: a length byte, then a signed number of that many bytes.
    fn long(&mut self) -> Result<i64> {
        let [count] = self.array()?;
        let taken = self.bytes(count.into())?;
        let sign = if taken.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
        let mut number = [sign; 8];
        let Some(low) = number.get_mut(..taken.len()) else {
            return Err(PickleError::Malformed("a number of more than 64 bits"));
        };
        low.copy_from_slice(taken);
        Ok(i64::from_le_bytes(number))
    }

    fn text(&mut self, length: usize) -> Result<()> {
        let taken = str::from_utf8(self.bytes(length)?).map_err(|_| PickleError::Malformed("a text is not UTF-8"))?;
        let text = taken.to_owned();
        self.push(Node::Text(text));
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let length = self.input.iter().position(|byte| *byte == b'\n').ok_or(PickleError::CutOff)?;
        let line = String::from_utf8_lossy(self.bytes(length)?).trim_end_matches('\r').to_owned();
        self.array::<1>()?;
        Ok(line)
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.arena.len());
        self.arena.push(node);
    }

    /// The height of the last mark: nothing below it can be popped.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Handle> {
        let floor = self.floor();
        let top = if self.stack.len() > floor { self.stack.pop() } else { None };
        top.ok_or(PickleError::Malformed("the stack is empty"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Handle>> {
        let mark = self.marks.pop().ok_or(PickleError::Malformed("a mark is missing"))?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Result<Handle> {
        self.stack.last().copied().ok_or(PickleError::Malformed("the stack is empty"))
    }

    fn node(&self, at: Handle) -> Result<&Node> {
        self.arena.get(at).ok_or(PickleError::Malformed("a part is missing"))
    }

    fn dict(&mut self) -> Result<&mut Vec<(Handle, Handle)>> {
        let top = self.top()?;
        match self.arena.get_mut(top) {
            Some(Node::Dict(entries)) => Ok(entries),
            _ => Err(PickleError::Malformed("an entry is added to what is no dictionary")),
        }
    }

    fn remember(&mut self, slot: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<()> {
        let known = *self.memo.get(&slot).ok_or(PickleError::Malformed("a part is used before it is made"))?;
        self.stack.push(known);
        Ok(())
    }

    fn stack_global(&mut self) -> Result<()> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (Node::Text(module), Node::Text(name)) = (self.node(module)?, self.node(name)?) else {
            return Err(PickleError::Malformed("a class has no name"));
        };
        let class = Class::known(module, name)?;
        self.push(Node::Class(class));
        Ok(())
    }

    fn call(&mut self) -> Result<()> {
        let (args, class) = (self.pop()?, self.pop()?);
        let node = match self.node(class)? {
            Node::Class(Class::OrderedDict) => Node::Dict(Vec::new()),
            Node::Class(class) => Node::Called { class: class.clone(), args },
            _ => return Err(PickleError::Malformed("what is called is no class")),
        };
        self.push(node);
        Ok(())
    }

    /// The arguments of `_rebuild_tensor_v2`, through the wrappers around it; `None` if the value is no tensor.
    fn description(&self, value: Handle) -> Result<Option<&[Handle]>> {
        let Node::Called { class, args } = self.node(value)? else { return Ok(None) };
        let Node::Tuple(args) = self.node(*args)? else { return Ok(None) };
        match (class, &args[..]) {
            (Class::RebuildTensor, args) => Ok(Some(args)),
            // (tensor, requires_grad, hooks)
            (Class::RebuildParameter, [tensor, ..]) => match self.node(*tensor)? {
                Node::Called { class: Class::RebuildTensor, args } => self.tuple(*args).map(Some),
                _ => Ok(None),
            },
            // (function, type, its arguments, state)
            (Class::RebuildFromType, [function, _, args, ..]) => match self.node(*function)? {
                Node::Class(Class::RebuildTensor) => self.tuple(*args).map(Some),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn tuple(&self, at: Handle) -> Result<&[Handle]> {
        match self.node(at)? {
            Node::Tuple(items) => Ok(items),
            _ => Err(PickleError::Malformed("arguments are no tuple")),
        }
    }

    /// A tensor from `(storage, offset, size, stride, requires_grad, hooks)`.
    fn tensor(&self, name: &str, args: &[Handle]) -> Option<PickledTensor> {
        let [storage, offset, size, stride, ..] = args else { return None };
        let Node::Storage(id) = self.node(*storage).ok()? else { return None };
        // ("storage", class, key, device, elements)
        let [_, class, key, ..] = self.tuple(*id).ok()? else { return None };
        let (Node::Class(Class::Storage(storage)), Node::Text(key)) = (self.node(*class).ok()?, self.node(*key).ok()?)
        else {
            return None;
        };
        let sizes =
            |at: Handle| self.tuple(at).ok()?.iter().map(|item| self.size(*item)).collect::<Option<Vec<usize>>>();
        Some(PickledTensor {
            name: name.to_owned(),
            storage: storage.clone(),
            key: key.clone(),
            offset: self.size(*offset)?,
            shape: sizes(*size)?,
            stride: sizes(*stride)?,
        })
    }

    fn size(&self, at: Handle) -> Option<usize> {
        match self.node(at) {
            Ok(Node::Int(number)) => usize::try_from(*number).ok(),
            _ => None,
        }
    }
}

fn pairs(items: &[Handle]) -> Result<Vec<(Handle, Handle)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(PickleError::Malformed("a key of a dictionary has no value"));
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE_DICT: &[u8] = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01X\x01\x00\x00\x00wq\x02ctorch._utils\n_rebuild_tensor_v2\nq\x03((X\x07\x00\x00\x00storageq\x04ctorch\nFloatStorage\nq\x05X\x01\x00\x00\x000q\x06X\x03\x00\x00\x00cpuq\x07K\x08tq\x08QK\x02K\x02K\x03\x86q\x09K\x03K\x01\x86q\x0a\x89h\x00)Rq\x0btq\x0cRq\x0ds}q\x0eX\x09\x00\x00\x00_metadataq\x0fh\x00)Rsb.";

    #[test]
    fn state_dict_lists_its_tensors() {
        let expected = PickledTensor {
            name: "w".to_owned(),
            storage: "FloatStorage".to_owned(),
            key: "0".to_owned(),
            offset: 2,
            shape: vec![2, 3],
            stride: vec![3, 1],
        };
        assert_eq!(tensors(STATE_DICT), Ok(vec![expected]));
    }

    #[test]
    fn truncated_pickle_is_an_error() {
        for length in 0..STATE_DICT.len() {
            assert!(tensors(&STATE_DICT[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn calls_are_refused_by_name() {
        for (pickle, refused) in [
            (&b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."[..], "os.system"),
            (b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.", "posix.system"),
            (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "builtins.eval"),
            (b"\x80\x02c__builtin__\neval\n(X\x01\x00\x00\x001tR.", "__builtin__.eval"),
            (b"\x80\x02csubprocess\nPopen\n)\x81.", "subprocess.Popen"),
            (b"\x80\x02ctorch\nload\n)R.", "torch.load"),
        ] {
            assert_eq!(tensors(pickle), Err(PickleError::Refused(refused.to_owned())));
        }
        // INST, OBJ and the extension registry refer to classes in other ways; none of them is supported here.
        for pickle in [&b"(S'true'\nios\nsystem\n."[..], b"(ios\nsystem\n.", b"\x82\x01."] {
            assert!(matches!(tensors(pickle), Err(PickleError::Instruction(_))));
        }
    }

    #[test]
    fn repeated_or_nested_pickle_stays_small() {
        let doubled = [&b"\x80\x02)q\x00"[..], &b"h\x00h\x00\x86q\x00".repeat(10_000), b"."].concat();
        assert_eq!(tensors(&doubled), Ok(Vec::new()));
        let nested = [&b"\x80\x02)"[..], &b"\x85".repeat(1_000_000), b"."].concat();
        assert_eq!(tensors(&nested), Ok(Vec::new()));
    }
}
