//! XLM-RoBERTa-XL, XLM-RoBERTa and BERT in candle, over packed batches.
