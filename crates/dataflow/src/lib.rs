//! The DataFusion operators from source to embeddings.
