//! Compiles the `.proto` files under `protos/` without `protoc` and writes, to Cargo's output folder:
//! `model.rs` (messages and services, one nested module per package), `urns.rs` (URN and other string
//! constants, read from the enum options) and `model.bin` (the FileDescriptorSet, imports included).

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use protox::prost_reflect::{
    DescriptorPool, EnumDescriptor, EnumValueDescriptor, ExtensionDescriptor, MessageDescriptor, Value,
};

const PROTOS: &str = "protos";
const PACKAGE: &str = "org.apache.beam.model.pipeline.v1";

/// Short module names, for the enums whose own name is long; any other enum's module bears the name of
/// the message around it, in snake case. Several enums may share a module if no name is in two of them.
const MODULES: &[(&str, &str)] = &[
    ("FnApiTransforms.Runner", "runner_transforms"),
    ("MonitoringInfoSpecs.Enum", "metrics"),
    ("MonitoringInfoTypeUrns.Enum", "metric_types"),
    ("MonitoringInfo.MonitoringInfoLabels", "metric_labels"),
    ("StandardArtifacts.Roles", "artifact_roles"),
    ("StandardArtifacts.Types", "artifact_types"),
    ("StandardCoders.Enum", "coders"),
    ("StandardDisplayData.DisplayData", "display_data"),
    ("StandardEnvironments.Environments", "environments"),
    ("StandardPTransforms.CombineComponents", "transforms"),
    ("StandardPTransforms.Composites", "transforms"),
    ("StandardPTransforms.DeprecatedPrimitives", "transforms"),
    ("StandardPTransforms.GroupIntoBatchesComponents", "transforms"),
    ("StandardPTransforms.Primitives", "transforms"),
    ("StandardPTransforms.SplittableParDoComponents", "transforms"),
    ("StandardProtocols.Enum", "protocols"),
    ("StandardRequirements.Enum", "requirements"),
    ("StandardResourceHints.Enum", "resource_hints"),
    ("StandardRunnerProtocols.Enum", "runner_protocols"),
    ("StandardSideInputTypes.Enum", "side_inputs"),
    ("StandardUserStateTypes.Enum", "user_states"),
    ("FixedWindowsPayload.Enum", "window_fns"),
    ("GlobalWindowsPayload.Enum", "window_fns"),
    ("SessionWindowsPayload.Enum", "window_fns"),
    ("SlidingWindowsPayload.Enum", "window_fns"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTOS}");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut files = Vec::new();
    proto_files(Path::new(PROTOS), &mut files)?;
    files.sort();

    let mut compiler = protox::Compiler::new([PROTOS])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(&files)?;

    tonic_prost_build::configure()
        .bytes(".")
        .include_file("model.rs")
        .emit_rerun_if_changed(false)
        .compile_fds(compiler.file_descriptor_set())?;

    let pool = compiler.descriptor_pool();
    fs::write(out.join("urns.rs"), constants(&pool)?)?;

    // What is embedded carries the options (prost's own types would drop the extensions), not the comments.
    compiler.include_source_info(false);
    fs::write(out.join("model.bin"), compiler.encode_file_descriptor_set())?;
    Ok(())
}

fn proto_files(dir: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            proto_files(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

/// The four extensions of `google.protobuf.EnumValueOptions` that Beam's model declares.
struct Extensions {
    urn: ExtensionDescriptor,
    constant: ExtensionDescriptor,
    label: ExtensionDescriptor,
    metric: ExtensionDescriptor,
}

/// One constant to write: its name, its string and the full name of the enum value that carries it.
struct Constant {
    name: String,
    value: String,
    origin: String,
}

type Modules = BTreeMap<String, Vec<Constant>>;

fn constants(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let extension = |name: &str| {
        pool.get_extension_by_name(&format!("{PACKAGE}.{name}"))
            .ok_or_else(|| format!("the .proto files declare no extension {PACKAGE}.{name}"))
    };
    let extensions = Extensions {
        urn: extension("beam_urn")?,
        constant: extension("beam_constant")?,
        label: extension("label_props")?,
        metric: extension("monitoring_info_spec")?,
    };

    let (mut urns, mut others) = (Modules::new(), Modules::new());
    let mut metrics = String::new();
    for message in pool.all_messages() {
        for item in message.child_enums() {
            for value in item.values() {
                let options = value.options();
                let string = |e: &ExtensionDescriptor| options.get_extension(e).as_str().map(str::to_owned);
                if options.has_extension(&extensions.metric) {
                    let spec = Spec::read(&value, options.get_extension(&extensions.metric).as_ref())?;
                    spec.write(&mut metrics)?;
                    push(&mut urns, &message, &item, &value, spec.urn)?;
                } else if options.has_extension(&extensions.urn) {
                    let urn = string(&extensions.urn).unwrap_or_default();
                    push(&mut urns, &message, &item, &value, urn)?;
                } else if options.has_extension(&extensions.label) {
                    let props = options.get_extension(&extensions.label);
                    let name = text(props.as_ref(), "name")?;
                    push(&mut urns, &message, &item, &value, name)?;
                }
                if options.has_extension(&extensions.constant) {
                    let constant = string(&extensions.constant).unwrap_or_default();
                    push(&mut others, &message, &item, &value, constant)?;
                }
            }
        }
    }

    let mut code = String::new();
    code.push_str("/// URNs, and the names of metric labels, by the enum that lists them.\npub mod urns {\n");
    write_modules(&mut code, &urns)?;
    code.push_str(
        "}\n\n/// Fixed values that are no URNs: timestamps' bounds, keys, tokens.\npub mod constants {\n",
    );
    write_modules(&mut code, &others)?;
    writeln!(
        code,
        "}}\n\n/// Every metric of the model, in the order of its declaration.\n\
         pub const METRIC_SPECS: &[MetricSpec] = &[\n{metrics}];"
    )?;
    Ok(code)
}

fn push(
    modules: &mut Modules,
    message: &MessageDescriptor,
    item: &EnumDescriptor,
    value: &EnumValueDescriptor,
    constant: String,
) -> Result<(), Box<dyn Error>> {
    let path = format!("{}.{}", message.name(), item.name());
    let module = MODULES
        .iter()
        .find(|(name, _)| *name == path)
        .map(|(_, module)| (*module).to_owned());
    let module = module.unwrap_or_else(|| snake(message.name()));
    // A window function's message has one enum with one value, PROPERTIES; the message is its name.
    let name = match value.name() {
        "PROPERTIES" => snake(message.name().trim_end_matches("Payload")).to_uppercase(),
        name => name.to_owned(),
    };
    let list = modules.entry(module.clone()).or_default();
    if list.iter().any(|c| c.name == name) {
        return Err(format!("two constants {module}::{name}; give {path} another module in build.rs").into());
    }
    list.push(Constant {
        name,
        value: constant,
        origin: format!("{path}.{}", value.name()),
    });
    Ok(())
}

fn write_modules(code: &mut String, modules: &Modules) -> std::fmt::Result {
    for (module, list) in modules {
        writeln!(code, "    /// Constants `{module}`.\n    pub mod {module} {{")?;
        for c in list {
            writeln!(code, "        /// `{}` (`{}`).", c.value, c.origin)?;
            writeln!(code, "        pub const {}: &str = {:?};", c.name, c.value)?;
        }
        writeln!(code, "        /// Every constant of this module.")?;
        let names: Vec<&str> = list.iter().map(|c| c.name.as_str()).collect();
        writeln!(
            code,
            "        pub const ALL: &[&str] = &[{}];\n    }}",
            names.join(", ")
        )?;
    }
    Ok(())
}

/// What a `monitoring_info_spec` option says.
struct Spec {
    module_name: String,
    urn: String,
    kind: String,
    labels: Vec<String>,
}

impl Spec {
    fn read(value: &EnumValueDescriptor, option: &Value) -> Result<Self, Box<dyn Error>> {
        let message = option.as_message().ok_or("monitoring_info_spec is no message")?;
        let labels = message
            .get_field_by_name("required_labels")
            .ok_or("no field required_labels")?;
        let labels = labels.as_list().unwrap_or_default();
        Ok(Self {
            module_name: value.name().to_owned(),
            urn: text(option, "urn")?,
            kind: text(option, "type")?,
            labels: labels
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        })
    }

    fn write(&self, code: &mut String) -> std::fmt::Result {
        writeln!(
            code,
            "    MetricSpec {{ urn: urns::metrics::{}, type_urn: {:?}, required_labels: &{:?} }},",
            self.module_name, self.kind, self.labels
        )
    }
}

fn text(message: &Value, field: &str) -> Result<String, Box<dyn Error>> {
    let value = message.as_message().and_then(|m| m.get_field_by_name(field));
    let text = value.as_ref().and_then(|v| v.as_str()).map(str::to_owned);
    text.ok_or_else(|| format!("an enum option has no text field {field}").into())
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}
