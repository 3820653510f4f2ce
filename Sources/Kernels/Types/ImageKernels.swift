/// What Adam or NAdam needs for one step; the same for all parameters.
public struct AscentConstants {
  public var beta1, beta2: Float
  /// Factors of the gradient and of the updated first moment; the learning rate and bias corrections are in them.
  public var ofGradient, ofMoment: Float
  /// One over the square root of the bias correction of the second moment.
  public var inverseRootCorrection: Float
  public var epsilon: Float

  public init(beta1: Float, beta2: Float, ofGradient: Float, ofMoment: Float, inverseRootCorrection: Float, epsilon: Float) {
    self.beta1 = beta1
    self.beta2 = beta2
    self.ofGradient = ofGradient
    self.ofMoment = ofMoment
    self.inverseRootCorrection = inverseRootCorrection
    self.epsilon = epsilon
  }
}

/// How a row of a view becomes what a model looks at: (row + deviation * noise) * scale + shift.
public struct NoisyRowConstants {
  /// Of the noise's generator; the first word of the counter is the column's.
  public var key: (UInt32, UInt32)
  public var counter: (UInt32, UInt32, UInt32)
  public var deviation, scale, shift: Float

  public init(
    key: (UInt32, UInt32), counter: (UInt32, UInt32, UInt32), deviation: Float, scale: Float, shift: Float
  ) {
    self.key = key
    self.counter = counter
    self.deviation = deviation
    self.scale = scale
    self.shift = shift
  }
}

/// What images that are optimised need: their parameters' way to colours, views of them, and both ways back.
public struct ImageKernels: @unchecked Sendable {
  /// out = sum over taps of weight * row, rows `stride` apart: (rows, stride, weights, taps, columns, out).
  public typealias BandOfRows = @convention(c) (ConstantFloats, Int, ConstantFloats, Int, Int, Floats) -> Void
  /// out[o] = sum over taps of weights[o][t] * values[starts[o] + t], lanes of 16: (values, starts, weights, taps, count, out).
  public typealias BandOfLanes =
    @convention(c) (ConstantFloats, UnsafePointer<Int32>, ConstantFloats, Int, Int, Floats) -> Void
  /// (NoisyRowConstants, row, columns, out).
  public typealias NoisyRow = @convention(c) (UnsafeRawPointer, ConstantFloats, Int, Floats) -> Void
  /// rgb = logistic function of x times a matrix [3, 3]: (x, distance of its planes, matrix, columns, rgb, distance).
  public typealias Colours = @convention(c) (ConstantFloats, Int, ConstantFloats, Int, Floats, Int) -> Void
  /// Its adjoint: (rgb, gradient, distance of their planes, matrix, columns, out, distance).
  public typealias ColoursAdjoint =
    @convention(c) (ConstantFloats, ConstantFloats, Int, ConstantFloats, Int, Floats, Int) -> Void
  /// re + i im = magnitude * e^(i phase): (phase, magnitude, columns, re, im).
  public typealias Spectrum = @convention(c) (ConstantFloats, ConstantFloats, Int, Floats, Floats) -> Void
  /// out = weight * (re * gradient im - im * gradient re): (re, im, gradient re, gradient im, weight, columns, out).
  public typealias PhaseGradient =
    @convention(c) (ConstantFloats, ConstantFloats, ConstantFloats, ConstantFloats, Float, Int, Floats) -> Void
  /// One step uphill: (AscentConstants, gradient, first moment, second moment, parameter, columns).
  public typealias Ascend = @convention(c) (UnsafeRawPointer, ConstantFloats, Floats, Floats, Floats, Int) -> Void

  public var bandOfRows: BandOfRows
  public var bandOfLanes: BandOfLanes
  public var noisyRow: NoisyRow
  public var colours: Colours
  public var coloursAdjoint: ColoursAdjoint
  public var spectrum: Spectrum
  public var phaseGradient: PhaseGradient
  public var ascend: Ascend

  public init(
    bandOfRows: @escaping BandOfRows, bandOfLanes: @escaping BandOfLanes, noisyRow: @escaping NoisyRow,
    colours: @escaping Colours, coloursAdjoint: @escaping ColoursAdjoint, spectrum: @escaping Spectrum,
    phaseGradient: @escaping PhaseGradient, ascend: @escaping Ascend
  ) {
    self.bandOfRows = bandOfRows
    self.bandOfLanes = bandOfLanes
    self.noisyRow = noisyRow
    self.colours = colours
    self.coloursAdjoint = coloursAdjoint
    self.spectrum = spectrum
    self.phaseGradient = phaseGradient
    self.ascend = ascend
  }
}
