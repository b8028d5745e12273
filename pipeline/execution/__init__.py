"""All that runs on Ray.

Ray reads some variables when it is imported, so they are set here, before any module of this
package imports it.
"""

from pipeline.execution.environment import prepare_environment

prepare_environment()
