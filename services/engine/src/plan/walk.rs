//! Going through the tensors of a layer, always in the same order.

use super::layer::{
    Attention, Block, Embedding, Experts, FeedForward, Layer, Linear, Network, Norm, Output,
    Router, Shared,
};

impl<T> Layer<T> {
    /// Makes the same layer of something else, tensor by tensor.
    /// # Errors
    /// The first that `f` gives.
    pub fn try_map<U, E>(&self, mut f: impl FnMut(&T) -> Result<U, E>) -> Result<Layer<U>, E> {
        let f = &mut f;
        Ok(match self {
            Layer::Embedding(layer) => Layer::Embedding(Embedding {
                table: f(&layer.table)?,
                positions: layer.positions.as_ref().map(&mut *f).transpose()?,
                rope_factors: layer.rope_factors.as_ref().map(f).transpose()?,
            }),
            Layer::Block(layer) => Layer::Block(Box::new(layer.try_map(f)?)),
            Layer::Experts(layer) => {
                let networks = layer.networks.iter();
                Layer::Experts(Experts {
                    index: layer.index,
                    networks: networks
                        .map(|network| network.try_map(f))
                        .collect::<Result<_, _>>()?,
                    post_norm: map_norm(layer.post_norm.as_ref(), f)?,
                })
            }
            Layer::Output(layer) => Layer::Output(Output {
                norm: layer.norm.try_map(f)?,
                projection: layer.projection.try_map(f)?,
            }),
        })
    }

    /// Sees every tensor once.
    pub fn for_each(&self, mut f: impl FnMut(&T)) {
        let seen: Result<Layer<()>, std::convert::Infallible> = self.try_map(|tensor| {
            f(tensor);
            Ok(())
        });
        match seen {
            Ok(_) => {}
        }
    }
}

impl<T> Block<T> {
    fn try_map<U, E>(&self, f: &mut impl FnMut(&T) -> Result<U, E>) -> Result<Block<U>, E> {
        let Attention {
            norm,
            q,
            k,
            v,
            q_norm,
            k_norm,
            sinks,
            output,
            post_norm,
        } = &self.attention;
        Ok(Block {
            index: self.index,
            attention: Attention {
                norm: map_norm(norm.as_ref(), f)?,
                q: q.try_map(f)?,
                k: k.try_map(f)?,
                v: v.try_map(f)?,
                q_norm: q_norm.as_ref().map(&mut *f).transpose()?,
                k_norm: k_norm.as_ref().map(&mut *f).transpose()?,
                sinks: sinks.as_ref().map(&mut *f).transpose()?,
                output: output.try_map(f)?,
                post_norm: map_norm(post_norm.as_ref(), f)?,
            },
            ffn_norm: map_norm(self.ffn_norm.as_ref(), f)?,
            feed_forward: match &self.feed_forward {
                FeedForward::Dense { network, post_norm } => FeedForward::Dense {
                    network: network.try_map(f)?,
                    post_norm: map_norm(post_norm.as_ref(), f)?,
                },
                FeedForward::Routed(router) => FeedForward::Routed(router.try_map(f)?),
            },
        })
    }
}

impl<T> Router<T> {
    fn try_map<U, E>(&self, f: &mut impl FnMut(&T) -> Result<U, E>) -> Result<Router<U>, E> {
        Ok(Router {
            linear: self.linear.try_map(f)?,
            selection_bias: self.selection_bias.as_ref().map(&mut *f).transpose()?,
            shared: match &self.shared {
                None => None,
                Some(Shared { network, gate }) => Some(Shared {
                    network: network.try_map(f)?,
                    gate: gate.as_ref().map(|gate| gate.try_map(f)).transpose()?,
                }),
            },
        })
    }
}

impl<T> Network<T> {
    /// Makes the same network of something else.
    /// # Errors
    /// The first that `f` gives.
    pub fn try_map<U, E>(&self, f: &mut impl FnMut(&T) -> Result<U, E>) -> Result<Network<U>, E> {
        Ok(Network {
            gate: self.gate.as_ref().map(|gate| gate.try_map(f)).transpose()?,
            up: self.up.try_map(f)?,
            down: self.down.try_map(f)?,
        })
    }
}

impl<T> Linear<T> {
    fn try_map<U, E>(&self, f: &mut impl FnMut(&T) -> Result<U, E>) -> Result<Linear<U>, E> {
        Ok(Linear {
            weight: f(&self.weight)?,
            bias: self.bias.as_ref().map(f).transpose()?,
        })
    }
}

impl<T> Norm<T> {
    /// Makes the same norm of something else.
    /// # Errors
    /// The first that `f` gives.
    pub fn try_map<U, E>(&self, f: &mut impl FnMut(&T) -> Result<U, E>) -> Result<Norm<U>, E> {
        Ok(Norm {
            weight: f(&self.weight)?,
            bias: self.bias.as_ref().map(f).transpose()?,
        })
    }
}

fn map_norm<T, U, E>(
    norm: Option<&Norm<T>>,
    f: &mut impl FnMut(&T) -> Result<U, E>,
) -> Result<Option<Norm<U>>, E> {
    norm.map(|norm| norm.try_map(f)).transpose()
}
