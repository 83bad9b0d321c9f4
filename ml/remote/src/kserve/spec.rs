//! What a server says of a model, and whether rows fit.

use serde::{Deserialize, Deserializer};

use super::Names;
use crate::failure::Failure;
use crate::tensor::{Datatype, Tensor, TensorRow, Values};

/// What a server says of one of its models.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServedModel {
    /// The version that answers, if that is known.
    pub(crate) version: Option<String>,
    /// Empty: the server does not tell.
    pub(crate) inputs: Vec<Spec>,
    pub(crate) outputs: Vec<Spec>,
    /// The name of an input of rows that have no names.
    pub(crate) input: String,
    /// The output that is wanted.
    pub(crate) output: Option<String>,
}

/// What a server says of a tensor. The first dimension counts rows; -1 stands for any length.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Spec {
    pub name: String,
    #[serde(default)]
    pub datatype: String,
    #[serde(default)]
    pub shape: Vec<i64>,
}

impl std::fmt::Display for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} {:?})", self.name, self.datatype, self.shape)
    }
}

/// A model's metadata in JSON.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    #[serde(default, deserialize_with = "or_default")]
    pub versions: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub inputs: Vec<Spec>,
    #[serde(default, deserialize_with = "or_default")]
    pub outputs: Vec<Spec>,
}

/// Some servers write null for nothing.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

fn list(specs: &[Spec]) -> String {
    let specs: Vec<String> = specs.iter().map(Spec::to_string).collect();
    specs.join(", ")
}

impl ServedModel {
    /// Checks what the server says against the types of rows and the names that were given.
    pub(crate) fn check<E: TensorRow, I: TensorRow>(
        names: &Names,
        metadata: Metadata,
    ) -> Result<ServedModel, Failure> {
        let Metadata {
            versions,
            inputs,
            outputs,
        } = metadata;
        let wrong = |text: String| Failure::denied(format!("model {}: {text}", names.model));
        let input = input_name::<E>(names, &inputs).map_err(wrong)?;
        for spec in &inputs {
            if let Some(rows) = spec.shape.first().filter(|rows| !matches!(rows, -1 | 1)) {
                return Err(wrong(format!(
                    "its input {spec} takes exactly {rows} rows at a time: a model is needed that takes any number (-1)"
                )));
            }
            if let Some(found) = E::DATATYPE
                && !spec.datatype.is_empty()
                && !found.carries(&spec.datatype)
            {
                return Err(wrong(format!(
                    "its input {spec} wants {}, but the pipeline's rows are {found}",
                    spec.datatype
                )));
            }
        }
        if let Some(name) = &names.output
            && !outputs.is_empty()
            && !outputs.iter().any(|spec| spec.name == *name)
        {
            return Err(wrong(format!(
                "it has no output {name}: it gives {}",
                list(&outputs)
            )));
        }
        let wanted: Vec<&Spec> = outputs
            .iter()
            .filter(|spec| names.output.as_ref().is_none_or(|name| spec.name == *name))
            .collect();
        if let (Some(datatype), [spec]) = (I::DATATYPE, &wanted[..])
            && !spec.datatype.is_empty()
            && !datatype.carries(&spec.datatype)
        {
            return Err(wrong(format!(
                "its output {spec} gives {}, but the pipeline's inferences are {datatype}",
                spec.datatype
            )));
        }
        if I::IS_ONE && wanted.len() > 1 {
            let text = format!(
                "it gives {}: choose one by KServe::output, or take all as Vec<Tensor>",
                list(&outputs)
            );
            return Err(wrong(text));
        }
        let told = (versions.len() == 1).then(|| versions[0].clone());
        Ok(ServedModel {
            version: names
                .version
                .clone()
                .or(told)
                .filter(|version| !version.is_empty()),
            output: names.output.clone(),
            inputs,
            outputs,
            input,
        })
    }

    /// Whether the model takes one row at a time.
    pub(crate) fn takes_one_row(&self) -> bool {
        self.inputs.iter().any(|spec| spec.shape.first() == Some(&1))
    }

    /// Gives a row's tensors the names and shapes that the model wants.
    ///
    /// # Errors
    /// When they do not fit: what is wrong.
    pub(crate) fn fit(&self, tensors: &mut [Tensor]) -> Result<(), String> {
        for tensor in tensors.iter_mut() {
            if tensor.name.is_empty() {
                tensor.name.clone_from(&self.input);
            }
            let values: usize = tensor.shape.iter().product();
            if values != tensor.values.len() {
                return Err(format!(
                    "the row's tensor {} has {} values, not the {values} of its shape {:?}",
                    tensor.name,
                    tensor.values.len(),
                    tensor.shape
                ));
            }
            let spec = self.inputs.iter().find(|spec| spec.name == tensor.name);
            match spec {
                Some(spec) => fit(tensor, spec)?,
                None if self.inputs.is_empty() => {}
                None => {
                    return Err(format!(
                        "the model has no input {}: it takes {}",
                        tensor.name,
                        list(&self.inputs)
                    ));
                }
            }
        }
        let missing = |spec: &&Spec| !tensors.iter().any(|tensor| tensor.name == spec.name);
        match self.inputs.iter().find(missing) {
            Some(spec) => Err(format!("the row has no tensor for the model's input {spec}")),
            None => Ok(()),
        }
    }
}

fn input_name<E: TensorRow>(names: &Names, inputs: &[Spec]) -> Result<String, String> {
    match (&names.input, inputs) {
        (Some(name), []) => Ok(name.clone()),
        (Some(name), _) if !inputs.iter().any(|spec| spec.name == *name) => {
            Err(format!("it has no input {name}: it takes {}", list(inputs)))
        }
        (_, [_, _, ..]) if E::IS_ONE => Err(format!(
            "it takes {}: give rows with names, Vec<Tensor>, in the place of {}",
            list(inputs),
            std::any::type_name::<E>()
        )),
        (Some(name), _) => Ok(name.clone()),
        (None, [spec]) => Ok(spec.name.clone()),
        (None, _) => Ok("input-0".to_owned()),
    }
}

/// Gives a row's tensor the shape of the model's input.
fn fit(tensor: &mut Tensor, spec: &Spec) -> Result<(), String> {
    if let Some(wanted) = Datatype::named(&spec.datatype) {
        let values = std::mem::replace(&mut tensor.values, Values::Bool(Vec::new()));
        tensor.values = values.into_precision(wanted);
        let datatype = tensor.values.datatype();
        if datatype != wanted {
            return Err(format!(
                "the row's tensor is {datatype}, but the model's input is {spec}"
            ));
        }
    }
    let Some((_, wanted)) = spec.shape.split_first() else {
        return Ok(());
    };
    // One value is also a row of one.
    if tensor.shape.is_empty() && wanted.iter().all(|length| matches!(length, -1 | 1)) {
        tensor.shape = vec![1; wanted.len()];
    }
    let fits = tensor.shape.len() == wanted.len()
        && tensor
            .shape
            .iter()
            .zip(wanted)
            .all(|(found, wanted)| *wanted == -1 || i64::try_from(*found) == Ok(*wanted));
    if fits {
        return Ok(());
    }
    Err(format!(
        "the row has the shape {:?}, but the model's input is {spec}, of which the first dimension counts rows",
        tensor.shape
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KServe;
    use crate::half::F16;

    fn metadata(text: &str) -> Metadata {
        serde_json::from_str(text).unwrap()
    }

    const IRIS: &str = r#"{"name": "iris", "versions": ["7"],
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}, {"name": "class", "datatype": "INT64", "shape": [-1]}]}"#;

    fn check<E: TensorRow, I: TensorRow>(model: KServe<E, I>, told: &str) -> Result<ServedModel, String> {
        ServedModel::check::<E, I>(&model.names, metadata(told)).map_err(|failure| failure.text)
    }

    #[test]
    fn models_that_do_not_fit_are_told_with_what_they_want() {
        type Rows = Vec<f32>;
        let told = |result: Result<ServedModel, String>| result.unwrap_err();
        let error = told(check(KServe::<Vec<f64>, Rows>::model("iris").output("y"), IRIS));
        assert_eq!(
            error,
            "model iris: its input x (FP32 [-1, 4]) wants FP32, but the pipeline's rows are FP64"
        );
        let error = told(check(KServe::<Rows, Rows>::model("iris").input("z"), IRIS));
        assert_eq!(error, "model iris: it has no input z: it takes x (FP32 [-1, 4])");
        let error = told(check(KServe::<Rows, Rows>::model("iris"), IRIS));
        assert!(
            error.contains("it gives y (FP32 [-1, 3]), class (INT64 [-1]): choose one"),
            "{error}"
        );
        let error = told(check(KServe::<Rows, Rows>::model("iris").output("class"), IRIS));
        assert!(
            error.contains("gives INT64, but the pipeline's inferences are FP32"),
            "{error}"
        );
        let error = told(check(KServe::<Rows, Rows>::model("iris").output("z"), IRIS));
        assert!(error.contains("no output z: it gives y"), "{error}");
        let two = r#"{"inputs": [{"name": "a", "datatype": "FP32", "shape": [-1]}, {"name": "b", "datatype": "FP32", "shape": [-1]}]}"#;
        let error = told(check(KServe::<f32, Rows>::model("two"), two));
        assert!(
            error.contains("give rows with names, Vec<Tensor>, in the place of f32"),
            "{error}"
        );
        let fixed = r#"{"inputs": [{"name": "a", "datatype": "FP32", "shape": [8, 4]}]}"#;
        let error = told(check(KServe::<Rows, Rows>::model("fixed"), fixed));
        assert!(error.contains("takes exactly 8 rows at a time"), "{error}");
    }

    #[test]
    fn rows_of_floats_are_rounded_for_models_of_halves() {
        let half = r#"{"inputs": [{"name": "x", "datatype": "FP16", "shape": [-1, 2]}], "outputs": [{"name": "y", "datatype": "FP16", "shape": [-1]}]}"#;
        let model = check(KServe::<Vec<f32>, f32>::model("half"), half).unwrap();
        let mut row = vec![1.0f32, 0.1].tensors();
        model.fit(&mut row).unwrap();
        assert_eq!(row[0].values, Values::F16([1.0, 0.1].map(F16::from_f32).to_vec()));
        let error = check(KServe::<Vec<f64>, f32>::model("half"), half).unwrap_err();
        assert!(
            error.contains("wants FP16, but the pipeline's rows are FP64"),
            "{error}"
        );
        let error = check(KServe::<Vec<f32>, f64>::model("half"), half).unwrap_err();
        assert!(
            error.contains("gives FP16, but the pipeline's inferences are FP64"),
            "{error}"
        );
    }

    #[test]
    fn rows_get_names_and_shapes() {
        let model = check(KServe::<Vec<f32>, i64>::model("iris").output("class"), IRIS).unwrap();
        assert_eq!(model.version.as_deref(), Some("7"));
        let mut row = vec![1.0f32; 4].tensors();
        model.fit(&mut row).unwrap();
        assert_eq!((&*row[0].name, &row[0].shape[..]), ("x", &[4][..]));
        let error = model.fit(&mut vec![1.0f32; 3].tensors()).unwrap_err();
        assert!(
            error.starts_with("the row has the shape [3], but the model's input is x (FP32 [-1, 4])"),
            "{error}"
        );
        let mut other = vec![Tensor {
            name: "x".to_owned(),
            shape: vec![2, 2],
            values: Values::F32(vec![1.0]),
        }];
        assert!(
            model
                .fit(&mut other)
                .unwrap_err()
                .contains("1 values, not the 4 of its shape")
        );
        assert!(
            model
                .fit(&mut [])
                .unwrap_err()
                .contains("no tensor for the model's input x")
        );
        let one = r#"{"inputs": [{"name": "t", "datatype": "BYTES", "shape": [-1, 1]}], "outputs": null}"#;
        let model = check(KServe::<String, String>::model("text"), one).unwrap();
        let mut row = "a".to_owned().tensors();
        model.fit(&mut row).unwrap();
        assert_eq!(row[0].shape, [1]);
        // A server that tells nothing.
        let model = check(KServe::<String, String>::model("text"), "{}").unwrap();
        let mut row = "a".to_owned().tensors();
        model.fit(&mut row).unwrap();
        assert_eq!((&*row[0].name, row[0].shape.len()), ("input-0", 0));
    }
}
