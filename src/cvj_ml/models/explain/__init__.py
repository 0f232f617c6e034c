"""Why a customer is more, or less, likely to advance."""
