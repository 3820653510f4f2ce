/// Access to every tensor by its number in `usae.h`, for saving, loading and inspection.
package struct TensorID: Equatable, CustomStringConvertible {
  package enum Kind: Int32, CustomStringConvertible {
    case mean = 0
    case scale = 1
    case encoderWeight = 2
    case encoderBias = 3
    case batchNormWeight = 4
    case batchNormBias = 5
    case runningMean = 6
    case runningVariance = 7
    case dictionary = 8
    case threshold = 9
    case meanRest = 10
    case thresholdRest = 11
    case silentTokens = 400
    case counters = 401
    case effectiveDimensions = 402

    /// As errors, files and Python name it.
    package var description: String {
      switch self {
      case .mean: "mean"
      case .scale: "scale"
      case .encoderWeight: "encoder_weight"
      case .encoderBias: "encoder_bias"
      case .batchNormWeight: "bn_weight"
      case .batchNormBias: "bn_bias"
      case .runningMean: "bn_running_mean"
      case .runningVariance: "bn_running_var"
      case .dictionary: "dictionary"
      case .threshold: "threshold"
      case .meanRest: "mean_rest"
      case .thresholdRest: "threshold_rest"
      case .silentTokens: "silent_tokens"
      case .counters: "counters"
      case .effectiveDimensions: "effective_dimensions"
      }
    }
  }

  package enum Part: Int32 {
    case value = 0
    case firstMoment = 100
    case secondMoment = 200
    case gradient = 300
  }

  package let kind: Kind
  package let part: Part

  package init?(_ number: Int32) {
    if number >= 400 {
      guard let kind = Kind(rawValue: number) else { return nil }
      (self.kind, part) = (kind, .value)
      return
    }
    guard number >= 0, let kind = Kind(rawValue: number % 100), let part = Part(rawValue: number / 100 * 100) else {
      return nil
    }
    (self.kind, self.part) = (kind, part)
  }

  /// As errors, files and Python name it.
  package var description: String {
    switch part {
    case .value: "\(kind)"
    case .firstMoment: "\(kind)_first_moment"
    case .secondMoment: "\(kind)_second_moment"
    case .gradient: "\(kind)_gradient"
    }
  }

  package var isInteger: Bool { kind == .silentTokens || kind == .counters }
}

/// A tensor in the caller's memory.
package struct TensorMemory {
  let model: Int
  let id: TensorID
  let data: UnsafeMutableRawPointer
  let count: Int

  package init(model: Int, _ id: TensorID, _ data: UnsafeMutableRawPointer, count: Int) {
    self.model = model
    self.id = id
    self.data = data
    self.count = count
  }
}

extension ModelParameters {
  fileprivate func trainable(_ kind: TensorID.Kind) -> Trainable? {
    switch kind {
    case .encoderWeight: return encoderWeight
    case .encoderBias: return encoderBias
    case .batchNormWeight: return batchNorm?.weight
    case .batchNormBias: return batchNorm?.bias
    case .dictionary: return dictionary
    case .mean, .meanRest, .scale, .runningMean, .runningVariance, .threshold, .thresholdRest: return nil
    case .silentTokens, .counters, .effectiveDimensions: return nil
    }
  }

  /// The float tensor with this number, or nil where the model has none.
  fileprivate func matrix(_ id: TensorID) -> PaddedMatrix? {
    if let tensor = trainable(id.kind) {
      switch id.part {
      case .value: return tensor.value
      case .firstMoment: return tensor.firstMoment
      case .secondMoment: return tensor.secondMoment
      case .gradient: return tensor.gradient
      }
    }
    guard id.part == .value else { return nil }
    switch id.kind {
    case .mean: return mean
    case .meanRest: return meanRest
    case .scale: return scale
    case .runningMean: return batchNorm?.runningMean
    case .runningVariance: return batchNorm?.runningVariance
    case .threshold: return threshold
    case .thresholdRest: return thresholdRest
    case .effectiveDimensions: return effectiveDimensions
    default: return nil
    }
  }
}

extension UniversalSAE {
  /// Rows and columns; a vector has no columns.
  package func tensorShape(model index: Int, _ id: TensorID) throws(USAEError) -> (rows: Int, columns: Int) {
    try lock.reading { () throws(USAEError) in try shape(index, id) }
  }

  private func shape(_ index: Int, _ id: TensorID) throws(USAEError) -> (rows: Int, columns: Int) {
    let model = try model(index, for: "a tensor")
    switch id.kind {
    case .silentTokens: return (concepts, 0)
    case .counters: return (3, 0)
    default: break
    }
    guard let matrix = model.matrix(id), try isVisible(index, id) else {
      throw .invalidArgument(
        name: "tensor", expected: "one that model '\(model.name)' has with this recipe", got: "\(id)",
        remedy: id.part == .gradient ? "gradients exist after a step that keeps them, for the tensors it trains" : "")
    }
    // A weight is a matrix even where one concept gives it one row.
    let isMatrix = id.kind == .encoderWeight || id.kind == .dictionary
    return isMatrix ? (matrix.rows, matrix.columns) : (matrix.columns, 0)
  }

  private func isVisible(_ index: Int, _ id: TensorID) throws(USAEError) -> Bool {
    guard id.part == .gradient else { return true }
    guard let visible = state.visibleGradients else { return false }
    return id.kind == .dictionary ? visible.dictionaries.contains(index) : visible.encoders.contains(index)
  }

  private func checkCount(_ index: Int, _ id: TensorID, _ count: Int) throws(USAEError) -> (rows: Int, columns: Int) {
    let shape = try shape(index, id)
    let expected = shape.rows * max(shape.columns, 1)
    guard count == expected else {
      throw .shapeMismatch(
        name: "\(id) of '\(state.models[index].name)'", expected: "\(expected) elements", got: "\(count)")
    }
    return shape
  }

  package func readTensor(model index: Int, _ id: TensorID, to data: UnsafeMutableRawPointer, count: Int) throws(USAEError) {
    _ = try readTensors([TensorMemory(model: index, id, data, count: count)])
  }

  /// Copies tensors out as they are at one moment. Returns the number of steps done then.
  package func readTensors(_ tensors: [TensorMemory]) throws(USAEError) -> Int {
    try lock.reading { () throws(USAEError) in
      try copyOut(tensors)
      return state.step
    }
  }

  /// Checks all tensors, and then copies them, inside the lock.
  func copyOut(_ tensors: [TensorMemory]) throws(USAEError) {
    for tensor in tensors { _ = try checkCount(tensor.model, tensor.id, tensor.count) }
    for tensor in tensors {
      let model = state.models[tensor.model]
      if tensor.id.isInteger {
        let out = tensor.data.assumingMemoryBound(to: Int64.self)
        if tensor.id.kind == .silentTokens {
          out.update(from: model.silentTokens.base, count: tensor.count)
        } else {
          (out[0], out[1], out[2]) = (Int64(model.encoderSteps), Int64(model.dictionarySteps), Int64(model.tokens))
        }
        continue
      }
      guard let matrix = model.matrix(tensor.id) else { preconditionFailure("its shape was found") }
      let out = tensor.data.assumingMemoryBound(to: Float.self)
      for r in 0..<matrix.rows { (out + r * matrix.columns).update(from: matrix.row(r), count: matrix.columns) }
    }
  }

  package func writeTensor(model index: Int, _ id: TensorID, from data: UnsafeRawPointer, count: Int) throws(USAEError) {
    try writeTensors([TensorMemory(model: index, id, UnsafeMutableRawPointer(mutating: data), count: count)])
  }

  /// Copies tensors in, after checking all of them.
  package func writeTensors(_ tensors: [TensorMemory]) throws(USAEError) {
    let work = makeWork()
    try changing { () throws(USAEError) in
      for tensor in tensors {
        _ = try checkCount(tensor.model, tensor.id, tensor.count)
        let model = state.models[tensor.model]
        if tensor.id.isInteger {
          try checkIntegers(model, tensor.id, tensor.data.assumingMemoryBound(to: Int64.self), tensor.count)
        } else {
          try checkValues(model, tensor.id, tensor.data.assumingMemoryBound(to: Float.self), tensor.count)
        }
      }
      for tensor in tensors { copyIn(tensor, work: work) }
      if !tensors.isEmpty { changed(gradients: nil) }
    }
  }

  private func copyIn(_ tensor: TensorMemory, work: InterruptibleWork) {
    let model = state.models[tensor.model]
    if tensor.id.isInteger {
      let values = tensor.data.assumingMemoryBound(to: Int64.self)
      if tensor.id.kind == .silentTokens {
        for c in 0..<tensor.count { model.silentTokens.base[c] = Self.within(values[c]) }
      } else {
        model.encoderSteps = Int(Self.within(values[0]))
        model.dictionarySteps = Int(Self.within(values[1]))
        model.tokens = Int(Self.within(values[2]))
      }
      return
    }
    guard let matrix = model.matrix(tensor.id) else { preconditionFailure("its shape was found") }
    let values = tensor.data.assumingMemoryBound(to: Float.self)
    for r in 0..<matrix.rows { matrix.row(r).update(from: values + r * matrix.columns, count: matrix.columns) }
    if tensor.id.kind == .scale { model.setScale { matrix.base[$0] } }
    if tensor.id.kind == .mean { model.meanRest.storage.zero() }
    if tensor.id.kind == .mean || tensor.id.kind == .meanRest { model.standardizationChanged() }
    if tensor.id.kind == .dictionary && tensor.id.part == .value {
      model.updateRowScales(state.recipe.rowNorm, work: work)
    }
  }

  private func checkValues(_ model: ModelParameters, _ id: TensorID, _ values: UnsafePointer<Float>, _ count: Int)
    throws(USAEError)
  {
    for i in 0..<count {
      let value = values[i]
      let valid: Bool
      switch id.kind {
      case .scale: valid = value > 0 && value.isFinite && (1 / value).isFinite
      case .effectiveDimensions: valid = value >= 1 && value <= Float(model.width)
      case .runningVariance, .threshold, .thresholdRest: valid = value >= 0 && value.isFinite
      // A gradient of some 1e19 leaves infinity there, as in PyTorch's AdamW; the element then no longer trains.
      case _ where id.part == .secondMoment: valid = value >= 0
      default: valid = value.isFinite
      }
      guard valid else {
        let expected =
          switch id.kind {
          case .scale: "positive finite numbers"
          case .effectiveDimensions: "a number from 1 to the width"
          default: "finite numbers, no negative variances or thresholds"
          }
        throw .invalidArgument(
          name: "\(id) of '\(model.name)'", expected: expected, got: "\(value) at position \(i)")
      }
    }
  }

  /// Counters, which only grow, are so small at first that they never overflow.
  private static let largestCounter: Int64 = 1 << 53

  private func checkIntegers(_ model: ModelParameters, _ id: TensorID, _ values: UnsafePointer<Int64>, _ count: Int)
    throws(USAEError)
  {
    for i in 0..<count where values[i] != Self.within(values[i]) {
      throw .invalidArgument(
        name: "\(id) of '\(model.name)'", expected: "whole numbers from 0 to 2^53", got: "\(values[i])")
    }
  }

  /// The counter itself, unless another thread changed it after the check.
  private static func within(_ counter: Int64) -> Int64 { min(max(counter, 0), largestCounter) }

  /// Sets the number of steps done, on which, with the seed, all random draws depend.
  package func setStepCount(_ step: Int) throws(USAEError) {
    try Self.require("step", step, in: 0...1 << 53)
    try changing { () throws(USAEError) in
      state.step = step
      changed(gradients: nil)
    }
  }
}
