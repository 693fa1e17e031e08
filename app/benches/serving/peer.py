"""ONNX Runtime as its own Python package runs it, for comparison: reads a number a line, answers with as many times in ms."""

import sys
import time

import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
tensor = np.zeros((1, 3, 224, 224), np.float32)
session.run(None, {"input": tensor})
print(onnxruntime.__version__, flush=True)
for line in sys.stdin:
    times = []
    for _ in range(int(line)):
        start = time.perf_counter()
        session.run(None, {"input": tensor})
        times.append((time.perf_counter() - start) * 1e3)
    print(*times, flush=True)
