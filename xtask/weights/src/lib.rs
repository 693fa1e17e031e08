//! The model's weights: fetched and verified, or seeded; written as the ONNX file that the engines load.
