//! The launches of a pass, in order. Per layer: four products, one attention, two norms.

use polylance_cuda::{
    DeviceBuffer, DeviceSlice, Pass,
    ops::{
        AddNorm, Attention as AttentionLaunch, Embed, Epilogue, GatherRowsF32, Gemm, Norm, Placement, Pool, PoolMode,
    },
};
use polylance_schema::Pooling;

use super::{Attention, Request, batch::Block, buffers::Places, decode::LayerCache, layout, stage::Stage};
use crate::{config::NormPlacement, error::Result};

impl Stage {
    /// The states of a batch after these layers, in the buffer of states; in the input buffer they are rounded. At the
    /// start, the buffer has the states of the stage before, if there is one.
    ///
    /// With a cache, the batch is the next tokens of one sequence: their keys and values are added to the cache.
    pub(super) fn layers(
        &self,
        pass: &mut Pass<'_>,
        places: &Places<'_>,
        block: &Block,
        attention: Attention,
        cache: Option<&LayerCache<'_>>,
    ) -> Result<()> {
        let layer = &self.tensors.layer;
        let rows = block.tokens();
        let [input, wide, added] =
            [&places.buffers.input, &places.buffers.wide, &places.buffers.added].map(DeviceBuffer::all);
        let mut walk = self.layers.walk();
        let mut next = walk.next(pass)?;
        if let Some(embeddings) = &self.tensors.embeddings {
            pass.mark("embeddings");
            self.embed(pass, places, block, embeddings, next)?;
        } else {
            pass.mark("norm");
            self.resume(pass, places, block, next)?;
        }
        let mut number = 0;
        while let Some(weights) = next {
            walk.copy_ahead(pass)?;
            self.attend(pass, places, block, weights, attention, cache.map(|cache| cache.layer(number)).transpose()?)?;
            pass.mark("norm");
            let norm = match self.config.kind.norm_placement() {
                NormPlacement::Pre => Placement::Pre(self.norm(&layer.feed_forward_norm, weights)?),
                NormPlacement::Post => Placement::Post(self.norm(&layer.attention_norm, weights)?),
            };
            self.add_norm(pass, places, block, Some(layer.attention_output.bias.slice(weights)?), norm)?;
            pass.mark("up");
            self.map(pass, &layer.intermediate, weights, Epilogue::Gelu, rows, [input, wide])?;
            pass.mark("down");
            pass.gemm(&self.product(&layer.output, weights, rows, [wide, added])?)?;
            pass.mark("norm");
            next = walk.next(pass)?;
            let norm = match (self.config.kind.norm_placement(), next, &self.tensors.last_norm) {
                (NormPlacement::Post, ..) => Placement::Post(self.norm(&layer.feed_forward_norm, weights)?),
                (NormPlacement::Pre, Some(next), _) => Placement::Pre(self.norm(&layer.attention_norm, next)?),
                (NormPlacement::Pre, None, Some(last)) => Placement::Post(self.norm(last, self.weights.all())?),
                (NormPlacement::Pre, None, None) => Placement::None,
            };
            self.add_norm(pass, places, block, Some(layer.output.bias.slice(weights)?), norm)?;
            number += 1;
        }
        Ok(())
    }

    /// The sum of the embeddings, normalized for the first layer.
    fn embed(
        &self,
        pass: &mut Pass<'_>,
        places: &Places<'_>,
        block: &Block,
        embeddings: &layout::Embeddings,
        first_layer: Option<DeviceSlice<'_>>,
    ) -> Result<()> {
        let weights = self.weights.all();
        let placement = match &embeddings.norm {
            Some(norm) => Placement::Post(self.norm(norm, weights)?),
            None => self.norm_of_first(first_layer)?,
        };
        Ok(pass.embed(&Embed {
            number: self.numbers,
            words: embeddings.words.slice(weights)?,
            position_table: embeddings.positions.slice(weights)?,
            type_table: embeddings.types.slice(weights)?,
            ids: places.part(block.ids)?,
            positions: places.part(block.positions)?,
            types: block.types.map(|types| places.part(types)).transpose()?,
            placement,
            states: places.buffers.states.all(),
            x: Some(places.buffers.input.all()),
            tokens: block.tokens(),
            hidden: self.geometry.hidden,
        })?)
    }

    /// The states of the stage before, normalized or rounded for the first layer: on one GPU, the layer before does that
    /// at its end.
    fn resume(
        &self,
        pass: &mut Pass<'_>,
        places: &Places<'_>,
        block: &Block,
        first_layer: Option<DeviceSlice<'_>>,
    ) -> Result<()> {
        let placement = match self.config.kind.norm_placement() {
            NormPlacement::Pre => self.norm_of_first(first_layer)?,
            NormPlacement::Post => Placement::None,
        };
        self.add_norm(pass, places, block, None, placement)
    }

    /// The norm before a first layer of a pre-norm kind.
    fn norm_of_first<'a>(&self, first_layer: Option<DeviceSlice<'a>>) -> Result<Placement<'a>> {
        let Some(first) = first_layer else { return Ok(Placement::None) };
        Ok(Placement::Pre(self.norm(&self.tensors.layer.attention_norm, first)?))
    }

    /// From the normalized states to the output of the attention block, with the weights of a layer.
    fn attend(
        &self,
        pass: &mut Pass<'_>,
        places: &Places<'_>,
        block: &Block,
        weights: DeviceSlice<'_>,
        attention: Attention,
        cache: Option<(DeviceSlice<'_>, usize)>,
    ) -> Result<()> {
        let buffers = places.buffers;
        let (geometry, layer) = (&self.geometry, &self.tensors.layer);
        let (qkv, before) = cache.unwrap_or_else(|| (buffers.wide.all(), 0));
        let row_bytes = |width: usize| width * self.numbers.bytes();
        let newest = qkv.slice(before * row_bytes(3 * geometry.context())..qkv.bytes())?;
        pass.mark("query, key, value");
        let maps = [buffers.input.all(), newest];
        self.map(pass, &layer.query_key_value, weights, Epilogue::None, block.tokens(), maps)?;
        pass.mark("attention");
        pass.attention(&AttentionLaunch {
            number: self.numbers,
            qkv,
            cu_seqlens: places.part(block.cu_seqlens)?,
            tile_list: places.part(block.tiles)?,
            out: buffers.context.all(),
            tokens: before + block.tokens(),
            sequences: block.sequences(),
            tiles: block.tiles.len / 2,
            heads: geometry.heads,
            head_size: geometry.padded_head,
            scale: 1.0 / (geometry.head_size as f32).sqrt(),
            causal: attention == Attention::Causal,
        })?;
        pass.mark("attention output");
        let context = buffers.context.slice(before * row_bytes(geometry.context())..buffers.context.bytes())?;
        let maps = [context, buffers.added.all()];
        Ok(pass.gemm(&self.product(&layer.attention_output, weights, block.tokens(), maps)?)?)
    }

    /// `out = x Wᵀ + b`, or GELU of that.
    fn map(
        &self,
        pass: &mut Pass<'_>,
        linear: &layout::Linear,
        weights: DeviceSlice<'_>,
        epilogue: Epilogue,
        rows: usize,
        [x, out]: [DeviceSlice<'_>; 2],
    ) -> Result<()> {
        let bias = Some(linear.bias.slice(weights)?);
        Ok(pass.gemm(&Gemm { bias, epilogue, ..self.product(linear, weights, rows, [x, out])? })?)
    }

    /// `out = x Wᵀ`, for a map whose bias is added to the states in f32.
    fn product<'a>(
        &self,
        linear: &layout::Linear,
        weights: DeviceSlice<'a>,
        rows: usize,
        [x, out]: [DeviceSlice<'a>; 2],
    ) -> Result<Gemm<'a>> {
        Ok(Gemm {
            number: self.numbers,
            x,
            w: linear.weight.slice(weights)?,
            bias: None,
            out,
            epilogue: Epilogue::None,
            m: rows,
            n: linear.outputs,
            k: linear.inputs,
        })
    }

    /// Adds a product and its bias to the states, if there is one, and normalizes the sum for the next product.
    fn add_norm(
        &self,
        pass: &mut Pass<'_>,
        places: &Places<'_>,
        block: &Block,
        bias: Option<DeviceSlice<'_>>,
        placement: Placement<'_>,
    ) -> Result<()> {
        Ok(pass.add_norm(&AddNorm {
            number: self.numbers,
            y: bias.map(|_| places.buffers.added.all()),
            bias,
            placement,
            states: places.buffers.states.all(),
            x: Some(places.buffers.input.all()),
            tokens: block.tokens(),
            hidden: self.geometry.hidden,
        })?)
    }

    fn norm<'a>(&self, norm: &layout::Norm, weights: DeviceSlice<'a>) -> Result<Norm<'a>> {
        let eps = self.config.layer_norm_eps as f32;
        Ok(Norm { weight: norm.weight.slice(weights)?, bias: norm.bias.slice(weights)?, eps })
    }

    /// The length of each output of a request: the vectors, each head's logits, the states.
    pub(super) fn output_lens(&self, block: &Block, request: &Request<'_>) -> Vec<usize> {
        let mut lens = Vec::new();
        lens.extend(request.vectors.map(|vectors| block.sequences() * vectors.dim));
        lens.extend(request.heads.iter().map(|head| head.output_len(block)));
        lens.extend(request.states.then(|| block.tokens() * self.geometry.hidden));
        lens
    }

    /// Writes the outputs of a request, in the order of [`Stage::output_lens`].
    pub(super) fn outputs(
        &self,
        pass: &mut Pass<'_>,
        places: &Places<'_>,
        block: &Block,
        request: &Request<'_>,
    ) -> Result<()> {
        let mut outputs = places.outputs.iter().copied();
        if let (Some(vectors), Some(out)) = (request.vectors, request.vectors.and_then(|_| outputs.next())) {
            pass.mark("pooling");
            pass.pool(&self.pooling(places, block, vectors.pooling, vectors.normalize, vectors.dim, out)?)?;
        }
        for (head, out) in request.heads.iter().zip(&mut outputs) {
            pass.mark("heads");
            head.launch(self, pass, places, block, out)?;
        }
        if let Some(out) = request.states.then(|| outputs.next()).flatten() {
            pass.mark("states");
            pass.gather_rows_f32(&GatherRowsF32 {
                states: places.buffers.states.all(),
                rows: places.part(block.rows)?,
                out,
                count: block.tokens(),
                hidden: self.geometry.hidden,
            })?;
        }
        Ok(())
    }

    /// One vector for each sequence of the batch.
    pub(super) fn pooling<'a>(
        &self,
        places: &Places<'a>,
        block: &Block,
        pooling: Pooling,
        normalize: bool,
        dim: usize,
        out: DeviceSlice<'a>,
    ) -> Result<Pool<'a>> {
        Ok(Pool {
            states: places.buffers.states.all(),
            cu_seqlens: places.part(block.cu_seqlens)?,
            out,
            tokens: block.tokens(),
            sequences: block.sequences(),
            hidden: self.geometry.hidden,
            dim,
            mode: pool_mode(pooling),
            normalize,
        })
    }
}

fn pool_mode(pooling: Pooling) -> PoolMode {
    match pooling {
        Pooling::Cls => PoolMode::Cls,
        Pooling::Mean => PoolMode::Mean,
        Pooling::Max => PoolMode::Max,
        Pooling::MeanSqrtLen => PoolMode::MeanSqrtLen,
        Pooling::WeightedMean => PoolMode::WeightedMean,
        Pooling::LastToken => PoolMode::LastToken,
    }
}
