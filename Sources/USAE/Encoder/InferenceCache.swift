/// Packed encoders, which are made when first needed and dropped when parameters change.
final class InferenceCache: Sendable {
  private let encoders = LockProtected<[String: PackedEncoder]>([:])
  private let k, slots: Int

  init(k: Int, slots: Int) {
    self.k = k
    self.slots = slots
  }

  func encoder(of model: ModelParameters, work: InterruptibleWork) throws(USAEError) -> PackedEncoder {
    if let found = encoders.withLock({ $0[model.name] }) { return found }
    // Outside the lock: two threads may both pack, and either result will do.
    let made = try PackedEncoder(
      model.encoderWeight.value, affine: { model.affine($0) }, limit: try model.codeLimit(k: k, slots: slots),
      work: work)
    encoders.withLock { $0[model.name] = made }
    return made
  }

  func clear() { encoders.withLock { $0.removeAll() } }
}
