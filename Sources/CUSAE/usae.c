/* Nothing but a check that the header stands alone; the bodies are in Sources/USAECABI. */
#include "usae.h"
