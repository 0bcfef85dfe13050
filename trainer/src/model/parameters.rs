//! Parameters by name: how optimizer, checkpoint and hash see a model.
//!
//! Names are paths through the model, such as `blocks.1.feed_forward.experts.w_up`. Every list
//! is in the model's own order, which never changes for a given configuration.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};

pub use super::parameter::{BALANCE_BIAS, Parameter, host, is_trained};

use super::{Model, ModelConfig};

/// All parameters of a model.
pub fn parameters(model: &Model) -> Vec<Parameter> {
    let mut collect = Collect { path: Path::default(), found: Vec::new(), has_values: true };
    model.visit(&mut collect);
    with_widths(model, collect.found)
}

fn with_widths(model: &Model, found: Vec<Parameter>) -> Vec<Parameter> {
    found.into_iter().map(|p| Parameter { widths: model.side_by_side(&p.name), ..p }).collect()
}

/// Names and shapes of all parameters of a model that need not be allocated, in the same order; the values
/// are one zero.
pub fn outline(config: &ModelConfig) -> Vec<Parameter> {
    let mut collect = Collect { path: Path::default(), found: Vec::new(), has_values: false };
    let model = Model::outline(config);
    model.visit(&mut collect);
    with_widths(&model, collect.found)
}

/// Takes the gradients of all trained parameters, flat, in the order of [`parameters`]; `None` for a
/// parameter that did not affect the loss.
pub fn take_gradients(model: &Model, gradients: &mut Gradients) -> Vec<Option<Tensor<1>>> {
    let mut take = Take { path: Path::default(), gradients, found: Vec::new() };
    model.visit(&mut take);
    take.found
}

/// The model with all trained parameters replaced, given flat and in the order of
/// [`parameters`].
pub fn replace_trained(model: Model, values: Vec<Tensor<1>>) -> Model {
    model.map(&mut Replace { path: Path::default(), values: values.into_iter(), trained_only: true })
}

/// The model with every parameter replaced, biases included, in the order of [`parameters`].
pub fn replace_all(model: Model, values: Vec<Tensor<1>>) -> Model {
    model.map(&mut Replace { path: Path::default(), values: values.into_iter(), trained_only: false })
}

/// A flat tensor of host values.
pub fn from_host(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

/// The position of a traversal.
#[derive(Default)]
struct Path(Vec<Option<String>>);

impl Path {
    /// Enters a field or element; the variants of an enum are not part of the name.
    fn enter(&mut self, name: &str, container: &str) {
        self.0.push((!container.starts_with("Enum:")).then(|| name.to_string()));
    }

    fn exit(&mut self) {
        self.0.pop();
    }

    fn name(&self) -> String {
        self.0.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(".")
    }
}

struct Collect {
    path: Path,
    found: Vec<Parameter>,
    has_values: bool,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val().without_autodiff();
        let shape = value.dims().to_vec();
        let value = match self.has_values {
            true => flat(value),
            false => Tensor::zeros([1], &value.device()),
        };
        self.found.push(Parameter { name: self.path.name(), shape, value, widths: Vec::new() });
    }
}

struct Take<'a> {
    path: Path,
    gradients: &'a mut Gradients,
    found: Vec<Option<Tensor<1>>>,
}

impl ModuleVisitor for Take<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if is_trained(&self.path.name()) {
            self.found.push(param.val().grad_remove(self.gradients).map(flat));
        }
    }
}

struct Replace {
    path: Path,
    values: std::vec::IntoIter<Tensor<1>>,
    trained_only: bool,
}

impl ModuleMapper for Replace {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let trained = is_trained(&self.path.name());
        if self.trained_only && !trained {
            return param;
        }
        let Some(value) = self.values.next() else { return param };
        let (id, old) = (param.id, param.val());
        let value = value.reshape(old.dims());
        let value = if old.is_autodiff() { Tensor::from_inner(value) } else { value };
        Param::initialized(id, value.set_require_grad(trained && old.is_autodiff()))
    }
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let n = tensor.shape().num_elements();
    tensor.reshape([n])
}
