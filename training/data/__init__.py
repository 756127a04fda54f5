"""Pictures with boxes: reading data sets, drawing views of them, batches."""
