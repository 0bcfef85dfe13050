//! The kernels under automatic differentiation: what each keeps, and what it hands back.

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{Angles, HostKernels, Routes, Spans};

/// A kernel of one differentiable input: its state, its forward, its backward.
macro_rules! unary {
    ($name:ident, $state:ty, |$saved:ident, $grad:ident| $backward:expr) => {
        #[derive(Debug)]
        struct $name;
        impl<B: HostKernels> Backward<B, 1> for $name {
            type State = $state;
            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
                let [parent] = ops.parents;
                let $grad = grads.consume::<B>(&ops.node);
                let $saved = ops.state;
                if let Some(parent) = parent {
                    grads.register::<B>(parent.id, $backward);
                }
            }
        }
    };
}

/// A kernel of two differentiable inputs, whose gradients come from one pass.
macro_rules! binary {
    ($name:ident, $state:ty, |$saved:ident, $grad:ident| $backward:expr) => {
        #[derive(Debug)]
        struct $name;
        impl<B: HostKernels> Backward<B, 2> for $name {
            type State = $state;
            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
                let [first, second] = ops.parents;
                let $grad = grads.consume::<B>(&ops.node);
                let $saved = ops.state;
                let (d_first, d_second) = $backward;
                if let Some(parent) = first {
                    grads.register::<B>(parent.id, d_first);
                }
                if let Some(parent) = second {
                    grads.register::<B>(parent.id, d_second);
                }
            }
        }
    };
}

unary!(Attention, (FloatTensor<B>, Arc<Spans>, f64), |saved, grad| {
    B::k_attention_backward(saved.0, grad, saved.1, saved.2)
});
unary!(Rotate, (Arc<Angles>, bool), |saved, grad| B::k_rotate(grad, saved.0, !saved.1));
unary!(Gather, Arc<Routes>, |routes, grad| B::k_gather_backward(grad, routes));
binary!(SwiGlu, (FloatTensor<B>, FloatTensor<B>), |saved, grad| {
    B::k_swiglu_backward(saved.0, saved.1, grad)
});
binary!(RmsNorm, (FloatTensor<B>, FloatTensor<B>, f64), |saved, grad| {
    B::k_rms_norm_backward(saved.0, saved.1, grad, saved.2)
});
binary!(Combine, (FloatTensor<B>, FloatTensor<B>, Arc<Routes>), |saved, grad| {
    B::k_combine_backward(saved.0, saved.1, grad, saved.2)
});
binary!(Grouped, (FloatTensor<B>, FloatTensor<B>, Arc<Routes>), |saved, grad| {
    B::k_grouped_backward(saved.0, saved.1, grad, saved.2)
});

impl<B: HostKernels, C: CheckpointStrategy> HostKernels for Autodiff<B, C> {
    fn k_attention(x: FloatTensor<Self>, spans: Arc<Spans>, scale: f64) -> FloatTensor<Self> {
        let prep = Attention.prepare::<C>([x.node()]).compute_bound().stateful();
        let y = B::k_attention(x.into_primitive(), spans.clone(), scale);
        match prep {
            OpsKind::Tracked(prep) => prep.finish((y.clone(), spans, scale), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn k_rotate(x: FloatTensor<Self>, angles: Arc<Angles>, is_back: bool) -> FloatTensor<Self> {
        let prep = Rotate.prepare::<C>([x.node()]).compute_bound().stateful();
        let y = B::k_rotate(x.into_primitive(), angles.clone(), is_back);
        match prep {
            OpsKind::Tracked(prep) => prep.finish((angles, is_back), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    /// # Panics
    /// Always: the loss, which alone uses it, computes its own gradient.
    fn k_softmax(_: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        panic!("the row softmax has no gradient")
    }

    fn k_gather(x: FloatTensor<Self>, routes: Arc<Routes>) -> FloatTensor<Self> {
        let prep = Gather.prepare::<C>([x.node()]).compute_bound().stateful();
        let y = B::k_gather(x.into_primitive(), routes.clone());
        match prep {
            OpsKind::Tracked(prep) => prep.finish(routes, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn k_swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let prep = SwiGlu.prepare::<C>([gate.node(), up.node()]).compute_bound().stateful();
        let (gate, up) = (gate.into_primitive(), up.into_primitive());
        let y = B::k_swiglu(gate.clone(), up.clone());
        match prep {
            OpsKind::Tracked(prep) => prep.finish((gate, up), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn k_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        let prep = RmsNorm.prepare::<C>([x.node(), weight.node()]).compute_bound().stateful();
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let y = B::k_rms_norm(x.clone(), weight.clone(), eps);
        match prep {
            OpsKind::Tracked(prep) => prep.finish((x, weight, eps), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn k_combine(
        rows: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        routes: Arc<Routes>,
    ) -> FloatTensor<Self> {
        let prep = Combine.prepare::<C>([rows.node(), weights.node()]).compute_bound().stateful();
        let (rows, weights) = (rows.into_primitive(), weights.into_primitive());
        let y = B::k_combine(rows.clone(), weights.clone(), routes.clone());
        match prep {
            OpsKind::Tracked(prep) => prep.finish((rows, weights, routes), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn k_grouped(x: FloatTensor<Self>, w: FloatTensor<Self>, routes: Arc<Routes>) -> FloatTensor<Self> {
        let prep = Grouped.prepare::<C>([x.node(), w.node()]).compute_bound().stateful();
        let (x, w) = (x.into_primitive(), w.into_primitive());
        let y = B::k_grouped(x.clone(), w.clone(), routes.clone());
        match prep {
            OpsKind::Tracked(prep) => prep.finish((x, w, routes), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    // Gradients of gradients are never asked for: the optimizer works outside of the graph.

    fn k_attention_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Arc<Spans>,
        _: f64,
    ) -> FloatTensor<Self> {
        first_order_only()
    }

    fn k_gather_backward(_: FloatTensor<Self>, _: Arc<Routes>) -> FloatTensor<Self> {
        first_order_only()
    }

    fn k_swiglu_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        first_order_only()
    }

    fn k_rms_norm_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        first_order_only()
    }

    fn k_combine_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Arc<Routes>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        first_order_only()
    }

    fn k_grouped_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Arc<Routes>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        first_order_only()
    }
}

/// # Panics
/// Always: reaching it is a bug of this crate.
fn first_order_only() -> ! {
    panic!("kernels have gradients of the first order only")
}
