/* Nothing but a check that the headers stand alone; the bodies are in Sources/USAECABI. */
#include "usae_testing.h"
