# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
