mod rows;
mod write;
