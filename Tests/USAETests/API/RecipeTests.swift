import CUSAE
import Testing

@testable import USAE
@testable import USAECABI

@Suite struct RecipeTests {
  /// `Recipe.fields` is read and written in the memory of `usae_recipe`, whose fields it must therefore list in order.
  @Test func theFieldsAreThoseOfTheHeaderInTheirOrder() throws {
    let header = Mirror(reflecting: usae_recipe()).children.compactMap(\.label).filter { !["size", "reserved"].contains($0) }
    #expect(Recipe.fields.map(\.name) == header)
  }

  /// A field that is changed in C under its name changes exactly one property, and back again exactly that field.
  @Test(arguments: Recipe.fields) func aFieldArrives(_ field: Recipe.Field) throws {
    let before = usae_recipe(Recipe())
    let changed = try Self.changed(field.name)
    let c = usae_recipe(changed)
    #expect(Self.differences(before, c) == [field.name])
    #expect(Self.differences(Recipe(), changed).count == 1)
    #expect(Self.differences(c, usae_recipe(try Recipe(c))).isEmpty)
    try changed.validate()
  }

  @Test func everyPropertyHasAField() throws {
    let reached = try Recipe.fields.flatMap { Self.differences(Recipe(), try Self.changed($0.name)) }
    #expect(Set(reached) == Set(Mirror(reflecting: Recipe()).children.compactMap(\.label)))
  }

  /// The default recipe with another value of one field, which a C caller has written at the offset that the library tells.
  static func changed(_ name: String) throws -> Recipe {
    var field = usae_recipe_field()
    field.size = UInt32(MemoryLayout<usae_recipe_field>.size)
    let number = try #require(Recipe.fields.firstIndex { $0.name == name })
    #expect(usae_recipe_field_at(Int64(number), &field, nil) == 0 && String(cString: field.name) == name)
    var c = usae_recipe(Recipe())
    withUnsafeMutableBytes(of: &c) { bytes in
      let place = bytes.baseAddress! + Int(field.offset)
      switch Int(field.kind) {
      case USAE_FIELD_CHOICE, USAE_FIELD_SWITCH: place.storeBytes(of: 1 - min(1, place.load(as: Int32.self)), as: Int32.self)
      case USAE_FIELD_COUNT: place.storeBytes(of: place.load(as: Int64.self) + 1, as: Int64.self)
      case USAE_FIELD_NUMBER: place.storeBytes(of: place.load(as: Double.self) / 2 + 0.001, as: Double.self)
      default: place.storeBytes(of: place.load(as: Double.self) / 2, as: Double.self)  // the first share
      }
    }
    return try Recipe(c)
  }

  /// Labels of the members in which two values differ.
  static func differences<Value>(_ a: Value, _ b: Value) -> [String] {
    zip(Mirror(reflecting: a).children, Mirror(reflecting: b).children).compactMap { mine, theirs in
      "\(mine.value)" == "\(theirs.value)" ? nil : mine.label
    }
  }

  @Test func asManyPrefixesAreTakenAsTheHeaderHasRoomFor() {
    #expect(Recipe.mostPrefixes == USAE_MOST_PREFIXES)
  }

  @Test func tensorsHaveTheNumbersOfTheHeader() {
    let kinds: [(TensorID.Kind, Int)] = [
      (.mean, USAE_MEAN), (.scale, USAE_SCALE), (.encoderWeight, USAE_ENCODER_WEIGHT),
      (.encoderBias, USAE_ENCODER_BIAS), (.batchNormWeight, USAE_BN_WEIGHT), (.batchNormBias, USAE_BN_BIAS),
      (.runningMean, USAE_BN_RUNNING_MEAN), (.runningVariance, USAE_BN_RUNNING_VAR), (.dictionary, USAE_DICTIONARY),
      (.threshold, USAE_THRESHOLD), (.meanRest, USAE_MEAN_REST), (.thresholdRest, USAE_THRESHOLD_REST),
      (.silentTokens, USAE_SILENT_TOKENS), (.counters, USAE_COUNTERS),
    ]
    for (kind, number) in kinds { #expect(TensorID(Int32(number))?.kind == kind) }
    #expect(TensorID(Int32(USAE_FIRST_MOMENT + USAE_DICTIONARY))?.part == .firstMoment)
    #expect(TensorID(Int32(USAE_SECOND_MOMENT + USAE_DICTIONARY))?.part == .secondMoment)
    #expect(TensorID(Int32(USAE_GRADIENT + USAE_DICTIONARY))?.part == .gradient)
  }

  @Test func errorsNameTensorsAndExchangesAsCallersDo() {
    let names = [
      (USAE_ENCODER_WEIGHT, "encoder_weight"), (USAE_BN_WEIGHT, "bn_weight"), (USAE_BN_RUNNING_VAR, "bn_running_var"),
      (USAE_SILENT_TOKENS, "silent_tokens"), (USAE_FIRST_MOMENT + USAE_BN_BIAS, "bn_bias_first_moment"),
      (USAE_GRADIENT + USAE_DICTIONARY, "dictionary_gradient"),
    ]
    for (number, name) in names { #expect(TensorID(Int32(number)).map { "\($0)" } == name) }
    #expect("\(SharedExchange.Kind.residualMeans)" == "USAE_EXCHANGE_RESIDUAL_MEANS")
    #expect(TensorID(12) == nil && TensorID(-1) == nil && TensorID(Int32.max) == nil)
  }
}

extension Recipe.Field: CustomTestStringConvertible {
  public var testDescription: String { name }
}
