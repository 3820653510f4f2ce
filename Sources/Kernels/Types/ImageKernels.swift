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

/// From a row of a view to a row of a model's input: (row + deviation * noise) * scale + shift.
public struct NoisyRowConstants {
  /// Key and counter of the noise's generator; the first word of the counter is the column's.
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

/// Optimisation of images: from parameters to colours, from an image to views, and the backward passes of both.
public struct ImageKernels: @unchecked Sendable {
  /// out = sum over t < taps of weights[t] * rows[t].
  public typealias BandOfRows =
    @convention(c) (
      _ rows: ConstantFloats, _ stride: Int, _ weights: ConstantFloats, _ taps: Int, _ columns: Int, _ out: Floats
    ) -> Void
  /// out[o] = sum over t < taps of weights[o][t] * values[starts[o] + t], o < count, lanes of 16.
  public typealias BandOfLanes =
    @convention(c) (
      _ values: ConstantFloats, _ starts: UnsafePointer<Int32>, _ weights: ConstantFloats, _ taps: Int, _ count: Int,
      _ out: Floats
    ) -> Void
  /// A row with noise. `constants` points to `NoisyRowConstants`.
  public typealias NoisyRow =
    @convention(c) (_ constants: UnsafeRawPointer, _ row: ConstantFloats, _ columns: Int, _ out: Floats) -> Void
  /// rgb = logistic function of x times a matrix [3, 3]. Planes of x are `xPlane` apart, those of rgb `rgbPlane`.
  public typealias Colours =
    @convention(c) (
      _ x: ConstantFloats, _ xPlane: Int, _ matrix: ConstantFloats, _ columns: Int, _ rgb: Floats, _ rgbPlane: Int
    ) -> Void
  /// The adjoint of `Colours` at an image, of a gradient with planes as far apart as those of `rgb`.
  public typealias ColoursAdjoint =
    @convention(c) (
      _ rgb: ConstantFloats, _ gradient: ConstantFloats, _ rgbPlane: Int, _ matrix: ConstantFloats, _ columns: Int,
      _ out: Floats, _ outPlane: Int
    ) -> Void
  /// real + i imaginary = magnitude * e^(i phase).
  public typealias Spectrum =
    @convention(c) (
      _ phase: ConstantFloats, _ magnitude: ConstantFloats, _ columns: Int, _ real: Floats, _ imaginary: Floats
    ) -> Void
  /// out = weight * (real * imaginaryGradient - imaginary * realGradient).
  public typealias PhaseGradient =
    @convention(c) (
      _ real: ConstantFloats, _ imaginary: ConstantFloats, _ realGradient: ConstantFloats, _ imaginaryGradient: ConstantFloats,
      _ weight: Float, _ columns: Int, _ out: Floats
    ) -> Void
  /// One step uphill. `constants` points to `AscentConstants`.
  public typealias Ascend =
    @convention(c) (
      _ constants: UnsafeRawPointer, _ gradient: ConstantFloats, _ firstMoment: Floats, _ secondMoment: Floats,
      _ parameter: Floats, _ columns: Int
    ) -> Void

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
