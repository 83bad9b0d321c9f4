//! The values that a pickle builds.

use std::rc::Rc;

use tch::Kind;

/// An index into the machine's values.
pub(in crate::weights) type Id = usize;

/// What the numbers of a storage are.
#[derive(Debug, Clone)]
pub(in crate::weights) struct StorageType {
    /// The class's name without `Storage`.
    pub name: Rc<str>,
    /// Bytes of one number, where that is known.
    pub size: Option<usize>,
    /// libtorch's name of it, where such tensors are read.
    pub kind: Option<Kind>,
}

/// A storage: a run of numbers in the file.
#[derive(Debug, Clone)]
pub(in crate::weights) struct Storage {
    pub key: Rc<str>,
    pub numbers: StorageType,
    /// Where it starts, in numbers: not 0 for a view on another storage, which the format of before 1.6 has.
    pub offset: i64,
    pub elements: i64,
}

/// A strided view on a storage.
#[derive(Debug, Clone)]
pub(in crate::weights) struct SavedTensor {
    pub storage: Storage,
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
    /// The numbers stand for their negatives (PyTorch's negative bit).
    pub negated: bool,
}

/// The globals that are known.
#[derive(Debug, Clone)]
pub(in crate::weights) enum Global {
    /// A dict, or a class that is one.
    Dict,
    /// A dict with a factory for what is missing, which comes as the argument.
    DefaultDict,
    RebuildTensor,
    RebuildParameter,
    /// A tensor with attributes of its own.
    RebuildFromType,
    /// `torch.Tensor` or a class that means the same.
    TensorClass,
    /// What makes tensors of a kind that is not read, and the kind.
    UnreadTensor(&'static str),
    /// As above, for the number formats that have no storage class; the format is an argument.
    RebuildWithDtype,
    Storage(StorageType),
    /// Anything else: module and name.
    Other(Rc<str>),
}

impl Global {
    pub fn named(module: &str, name: &str) -> Global {
        match (module, name) {
            ("collections", "OrderedDict" | "Counter") | ("builtins" | "__builtin__", "dict") => Global::Dict,
            ("collections", "defaultdict") => Global::DefaultDict,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildWithDtype,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Global::RebuildParameter
            }
            ("torch._tensor", "_rebuild_from_type_v2") => Global::RebuildFromType,
            ("torch", "Tensor")
            | ("torch.nn.parameter", "Parameter" | "Buffer")
            | ("torch.autograd.variable", "Variable") => Global::TensorClass,
            ("torch._utils", "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor") => {
                Global::UnreadTensor("a sparse tensor")
            }
            ("torch._utils", "_rebuild_qtensor") => Global::UnreadTensor("a quantized tensor"),
            ("torch._utils", "_rebuild_nested_tensor") => Global::UnreadTensor("a nested tensor"),
            ("torch._utils", "_rebuild_meta_tensor_no_storage") => {
                Global::UnreadTensor("a tensor of the meta device, which has no numbers")
            }
            (
                "torch._utils",
                "_rebuild_device_tensor_from_numpy" | "_rebuild_device_tensor_from_cpu_tensor",
            ) => Global::UnreadTensor("a tensor of another device's own format"),
            ("torch._utils", "_rebuild_wrapper_subclass") => {
                Global::UnreadTensor("a tensor of a class of its own")
            }
            ("torch" | "torch.storage" | "torch.cuda", class) => match class.strip_suffix("Storage") {
                Some(numbers) => Global::Storage(StorageType::named(numbers)),
                None => Global::Other(format!("{module}.{name}").into()),
            },
            _ => Global::Other(format!("{module}.{name}").into()),
        }
    }

    /// How messages call it.
    pub fn name(&self) -> Rc<str> {
        match self {
            Global::Other(name) => name.clone(),
            Global::Dict | Global::DefaultDict => "dict".into(),
            Global::Storage(numbers) => format!("torch.{}Storage", numbers.name).into(),
            _ => "torch.Tensor".into(),
        }
    }
}

impl StorageType {
    fn named(name: &str) -> StorageType {
        let (size, kind) = match name {
            "Double" => (8, Some(Kind::Double)),
            "Float" => (4, Some(Kind::Float)),
            "Half" => (2, Some(Kind::Half)),
            "BFloat16" => (2, Some(Kind::BFloat16)),
            "Long" => (8, Some(Kind::Int64)),
            "Int" => (4, Some(Kind::Int)),
            "Short" => (2, Some(Kind::Int16)),
            "Char" => (1, Some(Kind::Int8)),
            "Byte" => (1, Some(Kind::Uint8)),
            "Bool" => (1, Some(Kind::Bool)),
            "ComplexDouble" => (16, None),
            "ComplexFloat" => (8, None),
            "QInt32" => (4, None),
            "QInt8" | "QUInt8" | "QUInt4x2" | "QUInt2x4" | "Untyped" => (1, None),
            _ => (0, None),
        };
        StorageType {
            name: name.into(),
            size: (size > 0).then_some(size),
            kind,
        }
    }
}

#[derive(Debug, Clone)]
pub(in crate::weights) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Str(Rc<str>),
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Set,
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage),
    Tensor(Box<SavedTensor>),
    /// A tensor that is not read, and why.
    Unread(Rc<str>),
    /// An object of a class that is not known; its items, if it was filled as a dict is.
    Object {
        class: Rc<str>,
        items: Vec<(Id, Id)>,
    },
}

impl Value {
    /// How messages call it.
    pub fn what(&self) -> String {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) => "a number",
            Value::Float => "a float",
            Value::Str(_) => "a string",
            Value::Bytes => "bytes",
            Value::Tuple(_) => "a tuple",
            Value::List(_) => "a list",
            Value::Set => "a set",
            Value::Dict(_) => "a dict",
            Value::Global(global) => return format!("the Python name {}", global.name()),
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a single tensor",
            Value::Unread(what) => return what.to_string(),
            Value::Object { class, .. } => return format!("the Python object {class}"),
        }
        .to_owned()
    }

    /// The items of a dict, or of an object that was filled as a dict is.
    pub fn items(&self) -> Option<&[(Id, Id)]> {
        match self {
            Value::Dict(items) => Some(items),
            Value::Object { items, .. } if !items.is_empty() => Some(items),
            _ => None,
        }
    }
}
